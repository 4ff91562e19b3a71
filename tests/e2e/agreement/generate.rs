//! Worlds and requests from a seed: few names and few values, so that things do meet.

use std::collections::BTreeSet;

use super::model::{
    Action, Condition, Else, Field, File, Instance, Min, Op, PATTERNS, Pool, Request, Rule, Select, Split, World,
};

/// A xorshift generator: the same in every run.
#[derive(Clone, Debug)]
pub struct Luck(u64);

const VALUES: [&str; 7] = ["a", "b", "ab", "1.2", "v1.10", "1.3-rc.1", ""];
const VERSIONS: [&str; 5] = ["1.2", "1.3", "1.10", "v1.3", "1.3-rc.1"];
const POOLS: [&str; 5] = ["pa", "pb", "pc", "pd", "pe"];

impl Luck {
    pub fn new(seed: u64) -> Self {
        let mut luck = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            luck.below(2);
        }
        luck
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    /// Once in so many times.
    fn rarely(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn some<T>(&mut self, least: u64, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..least + self.below(most - least + 1)).map(|_| make(self)).collect()
    }

    pub fn world(&mut self) -> World {
        let mut taken = BTreeSet::new();
        let mut files = Vec::new();
        for at in 0..1 + self.below(3) {
            let service = if at == 0 || self.rarely(2) { "web" } else { "api" };
            let mut hosts = match self.below(4) {
                0 => vec![],
                1 => vec!["*.shop.test"],
                2 => vec!["shop.test", "*.a.shop.test"],
                _ => vec!["a.shop.test"],
            };
            if at == 0 && !self.rarely(3) {
                hosts = vec![];
            }
            let mut paths =
                if at == 0 || self.rarely(2) { vec!["/"] } else { vec![self.one(&["/a", "/a/b", "/c"]), "/d"] };
            let pairs = |paths: &[&'static str]| -> Vec<(&str, &'static str)> {
                let hosts = if hosts.is_empty() { vec![""] } else { hosts.clone() };
                hosts.iter().flat_map(|host| paths.iter().map(move |path| (*host, *path))).collect()
            };
            paths.retain(|path| pairs(&[path]).iter().all(|pair| !taken.contains(pair)));
            if !paths.is_empty() {
                taken.extend(pairs(&paths));
                files.push(self.file(at, service, hosts, paths));
            }
        }
        let mut instances = Vec::new();
        let sick = self.rarely(3);
        for (service, most) in [("web", 8), ("api", 3)] {
            for at in 0..most - self.below(most) * self.below(2) {
                instances.push(self.instance(service, at, sick));
            }
        }
        let standing = self.below(4);
        World { files, instances, region: (standing > 0).then_some("eu"), zone: (standing > 1).then_some("eu-a") }
    }

    fn instance(&mut self, service: &'static str, at: u64, sick: bool) -> Instance {
        let states = ["passing", "critical", "maintenance", "warning", "passing", "passing", "passing"];
        let mut labels = std::collections::BTreeMap::new();
        let place = self.one(&[("eu", "eu-a"), ("eu", "eu-a"), ("eu", "eu-b"), ("us", "us-a")]);
        labels.insert("region", place.0);
        labels.insert("zone", place.1);
        if !self.rarely(6) {
            labels.insert("version", self.one(&VERSIONS));
        }
        if self.rarely(2) {
            labels.insert("env", self.one(&["a", "b"]));
        }
        if self.rarely(4) {
            labels.insert("lane", self.one(&["a", "b", "base"]));
        }
        Instance {
            id: format!("{service}-{at}"),
            service,
            labels,
            tags: self.some(0, 2, |luck| luck.one(&["canary", "blue"])),
            weights: self.one(&[(1, 1), (1, 1), (3, 1), (10, 2), (0, 1), (2, 0)]),
            status: self.one(&states[..if sick { 3 } else { 7 }]),
        }
    }

    fn file(&mut self, at: u64, service: &'static str, hosts: Vec<&'static str>, paths: Vec<&'static str>) -> File {
        let label = self.rarely(2).then(|| {
            let fields =
                self.some(1, 2, |luck| luck.one(&[Field::Header("x-lane"), Field::Cookie("lane"), Field::Query("q")]));
            (fields, self.rarely(2).then_some("base"))
        });
        let lanes = self.rarely(3).then(|| if self.rarely(2) { vec!["base"] } else { vec!["base", "a"] });
        let count = 1 + self.below(POOLS.len() as u64) as usize;
        let pools: Vec<Pool> = POOLS[..count].iter().map(|name| self.pool(name, label.is_some())).collect();
        let rules = 1 + self.below(6);
        File {
            name: format!("f{at}.yaml"),
            service,
            hosts,
            paths,
            lanes,
            prefer: self.one(&[vec![], vec!["region", "zone"], vec!["region", "zone"], vec!["zone"]]),
            spill: self.one(&[14, 10, 20]),
            min_local: self.one(&[0, 0, 0, 2]),
            trusted: if label.is_some() { self.one(&[None, Some("127.0.0.0/8"), Some("10.0.0.0/8")]) } else { None },
            rules: (0..rules).map(|n| self.rule(format!("f{at}r{n}"), &pools, label.is_some())).collect(),
            fallback: self.fallback(),
            label,
            pools,
        }
    }

    fn pool(&mut self, name: &'static str, labelled: bool) -> Pool {
        let select = match labelled && self.rarely(3) {
            true if self.rarely(2) => Select::And(vec![Select::Asked("lane"), self.select(1)]),
            true => Select::Asked(self.one(&["lane", "env"])),
            false => self.select(2),
        };
        Pool {
            name,
            select,
            min: if self.rarely(3) {
                self.one(&[Min::Count(2), Min::Percent(50), Min::Percent(34)])
            } else {
                Min::Count(1)
            },
            warning: !self.rarely(4),
            panic: if self.rarely(2) { Some(!self.rarely(3)) } else { None },
            random: self.rarely(3),
        }
    }

    fn select(&mut self, depth: u64) -> Select {
        match self.below(if depth == 0 { 7 } else { 11 }) {
            0 | 1 => Select::Is("version", self.one(&VERSIONS)),
            2 => Select::IsNot("env", self.one(&["a", "b"])),
            3 => Select::In("env", vec!["a", "b"]),
            4 => Select::Has(self.one(&["lane", "env", "version", "region"])),
            5 => Select::Below("version", self.one(&["1.3", "1.10", "2"])),
            6 => Select::Tag(self.one(&["canary", "blue"])),
            7 | 8 => Select::And(self.some(2, 3, |luck| luck.select(depth - 1))),
            9 => Select::Or(self.some(2, 3, |luck| luck.select(depth - 1))),
            _ => Select::Not(Box::new(self.select(depth - 1))),
        }
    }

    fn list(&mut self, pools: &[Pool]) -> Vec<&'static str> {
        let mut list: Vec<&str> = self.some(1, 3, |luck| luck.one(pools).name);
        let mut seen = BTreeSet::new();
        list.retain(|name| seen.insert(*name));
        list
    }

    fn rule(&mut self, name: String, pools: &[Pool], labelled: bool) -> Rule {
        let action = match self.below(12) {
            0 => Action::Redirect(self.one(&[301, 302, 307, 308])),
            1 => Action::Respond(self.one(&[200, 404, 418])),
            2..=5 => Action::To(self.list(pools)),
            _ => {
                let mut arms = self.some(1, 4, |luck| (luck.list(pools), luck.one(&[0, 1, 5, 5, 95])));
                arms[0].1 = arms[0].1.max(1);
                let mut named = BTreeSet::new();
                arms.retain(|(list, _)| named.insert(list.join(",")));
                let key = self.some(0, 2, |luck| luck.field(labelled, false));
                let (mint, epoch) = (!self.rarely(4), if self.rarely(3) { 2 } else { 0 });
                let salt = self.rarely(4).then_some("salted");
                let keyed = !key.is_empty();
                Action::Split(Split {
                    arms,
                    key,
                    mint,
                    epoch: if keyed { epoch } else { 0 },
                    salt: salt.filter(|_| keyed),
                })
            }
        };
        let fixed = matches!(action, Action::Redirect(_) | Action::Respond(_));
        let fallback = if fixed { None } else { self.fallback() };
        Rule { name, when: (!self.rarely(3)).then(|| self.condition(2, labelled)), action, fallback }
    }

    fn fallback(&mut self) -> Option<Else> {
        match self.below(6) {
            0 => Some(Else::Any),
            1 => Some(Else::Status(self.one(&[410, 502, 503]))),
            _ => None,
        }
    }

    fn field(&mut self, labelled: bool, fixed: bool) -> Field {
        let fields = [
            Field::Header("x-a"),
            Field::Header("x-b"),
            Field::Header("x-lane"),
            Field::Cookie("uid"),
            Field::Cookie("lane"),
            Field::Query("q"),
        ];
        match self.below(10) {
            0 if labelled => Field::Label,
            1 if fixed => self.one(&[Field::Method, Field::Scheme, Field::Host]),
            2 if fixed => Field::Path,
            _ => self.one(&fields),
        }
    }

    fn condition(&mut self, depth: u64, labelled: bool) -> Condition {
        match self.below(if depth == 0 { 10 } else { 15 }) {
            0 => Condition::From(self.one(&["127.0.0.0/8", "10.0.0.0/8", "'::/0'"])),
            1 => {
                let fields = self.some(1, 2, |luck| luck.field(labelled, false));
                Condition::Percent(fields, !self.rarely(3), self.one(&[5, 30, 50, 80]))
            }
            2 => Condition::Test(Field::Path, Op::Under(self.one(&["/a", "/a/b", "/"]))),
            3..=9 => Condition::Test(self.field(labelled, true), self.op()),
            10 | 11 => Condition::And(self.some(2, 3, |luck| luck.condition(depth - 1, labelled))),
            12 | 13 => Condition::Or(self.some(2, 3, |luck| luck.condition(depth - 1, labelled))),
            _ => Condition::Not(Box::new(self.condition(depth - 1, labelled))),
        }
    }

    fn op(&mut self) -> Op {
        let values = ["a", "b", "ab", "1.2", "GET", "/a", "shop.test"];
        match self.below(14) {
            0..=2 => Op::Is(self.one(&values)),
            3 => Op::IsNot(self.one(&values)),
            4 | 5 => Op::In(self.some(1, 3, |luck| luck.one(&values))),
            6 => Op::NotIn(self.some(1, 3, |luck| luck.one(&values))),
            7 | 8 => Op::Exists,
            9 => Op::Starts(self.one(&["a", "/a", "1."])),
            10 => Op::Ends(self.one(&["b", "2"])),
            11 => Op::Contains(self.one(&["a", ".", "b"])),
            12 => Op::Matches(self.below(PATTERNS.len() as u64) as usize),
            _ => Op::Order(self.one(&["<", "<=", ">", ">="]), self.one(&["1.2", "1.3", "1.10"])),
        }
    }

    pub fn request(&mut self) -> Request {
        let hosts = [
            ("shop.test", "shop.test"),
            ("Shop.Test:8080", "shop.test"),
            ("a.shop.test", "a.shop.test"),
            ("b.a.shop.test.", "b.a.shop.test"),
            ("x.shop.test", "x.shop.test"),
            ("other.test", "other.test"),
        ];
        let paths = [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b", "/a/b"),
            ("/%61/b/c", "/a/b/c"),
            ("/x/../ab", "/ab"),
            ("/c/./d", "/c/d"),
            ("/d", "/d"),
        ];
        let mut queries =
            vec![("q", "a", "a"), ("q", "a+b", "a b"), ("q", "%61b", "ab"), ("q", "", ""), ("z", "1", "1")];
        queries.push(("q", "1.3", "1.3"));
        let names = ["x-a", "x-b", "x-lane", "x-a"];
        Request {
            method: self.one(&["GET", "GET", "GET", "POST", "DELETE"]),
            host: self.one(&hosts),
            path: self.one(&paths),
            query: self.some(0, 2, |luck| luck.one(&queries)),
            headers: self.some(0, 4, |luck| (luck.one(&names), luck.one(&VALUES))),
            cookies: self.some(0, 2, |luck| {
                let name = luck.one(&["uid", "lane"]);
                let value =
                    if name == "uid" { format!("u{}", luck.below(300)) } else { luck.one(&["a", "b", "base"]).into() };
                (name.into(), value)
            }),
        }
    }
}
