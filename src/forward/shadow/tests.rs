use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::engine::testing::{instance, router, service, table};
use crate::engine::time::Millis;
use crate::observe::metrics::Metrics;

const HEAD: &str = "service: web\npools: {old: version == 1, new: version == 2}\nrules:\n";

fn ramp(share: u32) -> String {
    format!("{HEAD}  - {{name: ramp, split: {{new: {share}%, old: {}%}}}}\n", 100 - share)
}

fn of(version: &str, id: &str) -> Arc<crate::engine::instance::Instance> {
    Arc::new(instance("web", id, 1, &[("version", version)]))
}

struct Bench {
    shadow: Shadow,
    slot: Slot,
    scratch: Scratch,
}

impl Bench {
    /// A worker with these shadow rules beside a table.
    fn new(live: &Table, rules: &str) -> Self {
        let (log, _thread) = ShadowLog::start(None, 16, &[]).unwrap();
        let metrics = Rc::new(Metrics::new(1, crate::observe::metrics::Settings::default()).worker(0));
        let slot = Slot::default();
        let shadowing = Shadowing { slot: Arc::clone(&slot), log, sample: WHOLE };
        let bench = Self { shadow: Shadow::new(shadowing, 0, &metrics), slot, scratch: Scratch::new() };
        bench.beside(live, router(rules), Arc::default());
        bench
    }

    /// The shadow rules stand beside this table now.
    fn beside(&self, live: &Table, rules: Arc<Router>, figures: Arc<Figures>) {
        let table = Arc::new(live.with_router(live.generation, Arc::clone(&rules), Millis(0)).unwrap());
        let candidate = Candidate { live: live.generation, rules, table, figures, fields: Arc::default() };
        self.slot.store(Some(Arc::new(candidate)));
    }

    fn sums(&self) -> crate::observe::shadow::Sums {
        self.slot.load_full().unwrap().figures.sums()
    }

    fn request(&mut self, live: &Table, user: u64, now_us: u64) {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from(user));
        let request = RequestView {
            method: &Method::GET,
            scheme: "http",
            host: "web.internal",
            path: "/",
            query: None,
            headers: &headers,
            client: [127, 0, 0, 1].into(),
            sni: None,
            san: &[],
            trusted: true,
        };
        let decision = decide(live, &request, Draw(user), &mut self.scratch, &mut NoTrace);
        drop(self.shadow.count(live, &request, request.client, Draw(user), &decision, now_us));
    }
}

#[test]
fn pools_that_change_are_measured_again_within_the_same_counts() {
    let live = table(&ramp(5), vec![service("web", vec![of("1", "a"), of("2", "b")])]).unwrap();
    let mut bench = Bench::new(&live, &ramp(45));
    (0..10).for_each(|user| bench.request(&live, user, 0));
    assert!((bench.sums().moved - 0.4).abs() < 1e-6, "{:?}", bench.sums());

    // Without anybody in `new` both sides send everything to `old`.
    let ejected = Arc::clone(&live.snapshot.services()[0].endpoints[1].live);
    ejected.eject(Millis(1), 60_000);
    let next = live.with_health(2, &[ejected], Millis(1));
    let before = bench.slot.load_full().unwrap();
    let table = Arc::new(before.table.with_services(2, next.snapshot.services().to_vec(), &[], Millis(1)).0);
    let (rules, figures) = (Arc::clone(&before.rules), Arc::clone(&before.figures));
    let fields = Arc::clone(&before.fields);
    bench.slot.store(Some(Arc::new(Candidate { live: 2, rules, table, figures, fields })));
    (0..10).for_each(|user| bench.request(&next, user, 0));
    let sums = bench.sums();
    assert_eq!((sums.requests, sums.agreeing, sums.skipped), (20, 10, 0), "{sums:?}");
    assert!((sums.moved - 0.2).abs() < 1e-6, "{sums:?}");
}

#[test]
fn what_is_new_is_skipped_once_the_time_for_it_is_spent_and_what_is_known_is_not() {
    let rules =
        ramp(5).replace("  - {name: ramp", "  - {name: one, when: header.x-user == '1', to: new}\n  - {name: ramp");
    let live = table(&rules, vec![service("web", vec![of("1", "a"), of("2", "b")])]).unwrap();
    let mut bench = Bench::new(&live, &rules);
    bench.request(&live, 7, 5_000_000);
    bench.shadow.measured.set((5, MEASURING_US));
    bench.request(&live, 8, 5_100_000);
    bench.request(&live, 1, 5_200_000);
    assert_eq!((bench.sums().requests, bench.sums().skipped), (2, 1));
    bench.request(&live, 1, 6_000_000);
    assert_eq!((bench.sums().agreeing, bench.sums().skipped), (3, 1), "the next second has time again");
}

#[test]
fn where_a_pool_goes_by_hash_every_key_is_compared() {
    let head = HEAD.replace("pools: {", "balance: hash(header.x-user)\npools: {both: version > 0, ");
    let hashed = |pool: &str| format!("{head}  - {{name: all, to: {pool}}}\n");
    let instances = vec![of("1", "a"), of("2", "b")];
    let live = table(&hashed("both"), vec![service("web", instances)]).unwrap();
    let mut bench = Bench::new(&live, &hashed("old"));
    (0..1_000).for_each(|user| bench.request(&live, user, user * 1_000_000));
    let sums = bench.sums();
    assert_eq!((sums.requests, sums.skipped), (1_000, 0));
    assert!((0.4..0.6).contains(&sums.moved), "the keys of one of two instances: {sums:?}");
}
