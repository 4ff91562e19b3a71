//! Splits: keys, cookies, rerouting.

use super::*;

fn ramp(key: &[&str]) -> RuleFile {
    RuleFile { rules: vec![split("ramp", &[("gray", 5), ("stable", 95)], key)], ..web() }
}

fn user(id: u32) -> Request {
    Request::get("h/").header("cookie", &format!("uid=u{id}"))
}

#[test]
fn the_same_user_stays_and_the_shares_hold() {
    let table = fake(vec![ramp(&["cookie.uid"])]);
    let gray = (0..4_000).filter(|id| table.outcome(&user(*id), u64::from(*id)) == "ramp/gray").count();
    assert!((140..260).contains(&gray), "{gray} of 4000 at 5 %");
    for id in 0..50 {
        assert_eq!(table.decide(&user(id), 1).arm, table.decide(&user(id), 2).arm);
        assert_eq!(table.decide(&user(id), 1).mint, None);
    }
}

#[test]
fn a_lost_arm_moves_only_its_own_users() {
    let mut file = ramp(&["cookie.uid"]);
    file.rules = vec![split("ramp", &[("gray", 30), ("stable", 40), ("other", 30)], &["cookie.uid"])];
    let whole = fake(vec![file.clone()]);
    let lost = fake(vec![file]).count("gray", 3, 0, 1);
    let mut moved = [0; 3];
    for id in 0..2_000 {
        let (before, after) = (whole.decide(&user(id), 1), lost.decide(&user(id), 1));
        if before.arm == Some(0) {
            assert!(after.rerouted);
            moved[after.arm.unwrap() as usize] += 1;
        } else {
            assert_eq!((before.arm, after.rerouted), (after.arm, false));
        }
    }
    assert_eq!(moved[0], 0);
    assert!(moved[1] > moved[2], "by weight: {moved:?}");
}

#[test]
fn without_a_key_a_cookie_is_minted_that_keeps_the_arm() {
    let table = fake(vec![ramp(&["cookie.uid"])]);
    for draw in 0..200 {
        let first = table.decide(&Request::get("h/"), draw);
        let mint = first.mint.expect("a cookie");
        let set = cookie::set_cookie_value(&table.router.files[0].cookie, &mint, false);
        let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        let second = table.decide(&Request::get("h/").header("cookie", &format!("a=b; {pair}")), draw + 1_000);
        assert_eq!((second.arm, second.mint), (first.arm, None));
        let empty = table.decide(&Request::get("h/").header("cookie", &format!("uid=; {pair}")), draw);
        assert_eq!((empty.arm, empty.mint), (first.arm, None), "an empty key counts as absent");
    }
}

#[test]
fn another_epoch_recalls_everybody() {
    let mut file = ramp(&["cookie.uid"]);
    let old = fake(vec![file.clone()]);
    if let rules::Action::Split(split) = &mut file.rules[0].action {
        split.arms[0].weight = 95;
        split.epoch = 2;
    }
    let new = fake(vec![file]);
    let mint = old.decide(&Request::get("h/"), 1).mint.unwrap();
    let mut value = b"pointsman-web=".to_vec();
    mint.write(&mut value);
    let request = Request::get("h/").header("cookie", std::str::from_utf8(&value).unwrap());
    assert_eq!(new.decide(&request, 1).mint.map(|mint| mint.epoch), Some(2));
}

#[test]
fn without_keys_or_with_mint_off_each_request_draws() {
    let mut file = ramp(&["cookie.uid"]);
    if let rules::Action::Split(split) = &mut file.rules[0].action {
        split.mint = false;
    }
    for table in [fake(vec![ramp(&[])]), fake(vec![file])] {
        let gray = (0..4_000).filter(|draw| table.decide(&Request::get("h/"), *draw).arm == Some(0)).count();
        assert!((140..260).contains(&gray), "{gray} of 4000 at 5 %");
        assert_eq!(table.decide(&Request::get("h/"), 1).mint, None);
    }
}

#[test]
fn a_stable_share_as_a_condition_is_the_splits_own_hash() {
    let mut file = ramp(&["cookie.uid"]);
    file.rules.insert(0, rule("ramp-as-condition", "percent(cookie.uid) < 5", &["gray"]));
    let table = fake(vec![file]);
    let inside = (0..4_000).filter(|id| table.outcome(&user(*id), 1) == "ramp-as-condition/gray").count();
    assert!((140..260).contains(&inside), "{inside} of 4000 at 5 %");
    assert!(!table.outcome(&Request::get("h/"), 1).starts_with("ramp-as-condition"));
}
