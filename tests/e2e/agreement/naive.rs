//! What a world does with a request, straight off docs/RULES.md: no index, no slots, no cache, no table. Written apart
//! from the engine, so that both can be wrong only by being wrong in the same way twice.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::model::{
    Action, Condition, Else, Field, File, Instance, Min, Op, PATTERNS, Pool, Request, Rule, Select, World,
};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub file: Option<String>,
    pub rule: Option<String>,
    /// What may come of it, with how likely it is; more than one only where the request's own luck decides.
    pub ways: Vec<(f64, End)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// A pool, its levels, and whether everybody in it counts (panic).
    Pool { name: String, levels: Vec<Level>, panic: bool },
    /// A status, and whether the rule gives it itself.
    Status(u16, bool),
}

/// A locality level.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub rank: u8,
    /// In percent.
    pub load: u64,
    /// Id and weight.
    pub members: BTreeMap<String, u32>,
}

/// One request before one world.
struct Case<'w> {
    world: &'w World,
    request: &'w Request,
    file: &'w File,
    trusted: bool,
}

/// What becomes of a request. `minted`: the value of the cookie that the answer sets, if it sets one.
pub fn verdict(world: &World, request: &Request, minted: Option<&str>) -> Verdict {
    let none = |file: Option<&File>, rule, status| Verdict {
        file: file.map(|file| file.name.clone()),
        rule,
        ways: vec![(1.0, End::Status(status, false))],
    };
    let Some(file) = claimed(world, request) else { return none(None, None, 404) };
    let trusted = file.trusted.is_none_or(|network| network == "127.0.0.0/8");
    let case = Case { world, request, file, trusted };
    let Some(rule) = file.rules.iter().find(|rule| case.matches(rule)) else {
        return match file.fallback {
            Some(Else::Any) => Verdict {
                file: Some(file.name.clone()),
                rule: None,
                ways: vec![(1.0, case.any().unwrap_or(End::Status(503, false)))],
            },
            Some(Else::Status(status)) => none(Some(file), None, status),
            None => none(Some(file), None, 404),
        };
    };
    let ways = match &rule.action {
        Action::Redirect(status) | Action::Respond(status) => vec![(1.0, End::Status(*status, true))],
        Action::To(list) => vec![(1.0, case.first(list).unwrap_or_else(|| case.last_resort(rule)))],
        Action::Split(_) => case.split(rule, minted),
    };
    Verdict { file: Some(file.name.clone()), rule: Some(rule.name.clone()), ways }
}

/// Exact host, then the longest wildcard, then no host; then the longest path.
fn claimed<'w>(world: &'w World, request: &Request) -> Option<&'w File> {
    let (host, path) = (request.host.1, request.path.1);
    let mut best: Option<((usize, usize), &File)> = None;
    for file in &world.files {
        let patterns: Vec<&str> = if file.hosts.is_empty() { vec![""] } else { file.hosts.clone() };
        for pattern in patterns {
            let rank = match pattern.strip_prefix("*.") {
                _ if pattern.is_empty() => 1,
                None if pattern == host => 1_000,
                Some(suffix) if host.ends_with(&format!(".{suffix}")) => 2 + suffix.len(),
                _ => continue,
            };
            for prefix in file.paths.iter().filter(|prefix| under(path, prefix)) {
                let key = (rank, prefix.len());
                if best.as_ref().is_none_or(|(known, _)| *known < key) {
                    best = Some((key, file));
                }
            }
        }
    }
    best.map(|(_, file)| file)
}

fn under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path == prefix || path.starts_with(&format!("{prefix}/"))
}

impl Case<'_> {
    fn matches(&self, rule: &Rule) -> bool {
        let salt = match &rule.action {
            Action::Split(split) => split.salt.unwrap_or(&rule.name),
            _ => &rule.name,
        };
        rule.when.as_ref().is_none_or(|when| self.holds(when, salt))
    }

    fn holds(&self, condition: &Condition, salt: &str) -> bool {
        match condition {
            Condition::And(parts) => parts.iter().all(|part| self.holds(part, salt)),
            Condition::Or(parts) => parts.iter().any(|part| self.holds(part, salt)),
            Condition::Not(part) => !self.holds(part, salt),
            Condition::From(network) => *network == "127.0.0.0/8",
            Condition::Percent(fields, below, share) => self.key(fields).is_some_and(|key| {
                let hash = xxh3_64(&[salt.as_bytes(), b"\0", key.as_bytes()].concat());
                ((u128::from(hash) * 1_000_000) >> 64 < u128::from(*share) * 10_000) == *below
            }),
            Condition::Test(field, op) => {
                let value = self.value(*field);
                let is = |test: &dyn Fn(&str) -> bool| value.as_deref().is_some_and(test);
                match op {
                    Op::Is(with) => is(&|v| v == *with),
                    Op::IsNot(with) => !is(&|v| v == *with),
                    Op::In(all) => is(&|v| all.contains(&v)),
                    Op::NotIn(all) => !is(&|v| all.contains(&v)),
                    Op::Exists => value.is_some(),
                    Op::Starts(with) => is(&|v| v.starts_with(with)),
                    Op::Ends(with) => is(&|v| v.ends_with(with)),
                    Op::Contains(with) => is(&|v| v.contains(with)),
                    Op::Under(with) => is(&|v| under(v, with)),
                    Op::Matches(at) => is(&|v| PATTERNS[*at].1(v)),
                    Op::Order(sign, with) => is(&|v| {
                        let found = compare(v, with);
                        found.is_some_and(|order| match *sign {
                            "<" => order.is_lt(),
                            "<=" => order.is_le(),
                            ">" => order.is_gt(),
                            _ => order.is_ge(),
                        })
                    }),
                }
            }
        }
    }

    /// The first of the fields that is present and not empty.
    fn key(&self, fields: &[Field]) -> Option<String> {
        fields.iter().filter_map(|field| self.value(*field)).find(|value| !value.is_empty())
    }

    fn value(&self, field: Field) -> Option<String> {
        let request = self.request;
        let label = self.file.label.as_ref();
        let hidden = !self.trusted && label.is_some_and(|(fields, _)| fields.contains(&field));
        match field {
            Field::Header(_) | Field::Cookie(_) if hidden => None,
            Field::Header(name) => {
                let all: Vec<&str> = request.headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).collect();
                (!all.is_empty()).then(|| all.join(", "))
            }
            Field::Cookie(name) => request.cookies.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()),
            Field::Query(name) => request.query.iter().find(|(n, ..)| *n == name).map(|(.., v)| (*v).into()),
            Field::Method => Some(request.method.into()),
            Field::Scheme => Some("http".into()),
            Field::Host => Some(request.host.1.into()),
            Field::Path => Some(request.path.1.into()),
            Field::Label => {
                let (fields, fixed) = label?;
                self.key(fields).or_else(|| fixed.map(Into::into))
            }
        }
    }

    /// The arms that may get it, each with how likely it is to be the first, and what comes of it.
    fn split(&self, rule: &Rule, minted: Option<&str>) -> Vec<(f64, End)> {
        let Action::Split(split) = &rule.action else { unreachable!("it is one") };
        let arms: Vec<&(Vec<&str>, u64)> = split.arms.iter().filter(|(_, weight)| *weight > 0).collect();
        let cookie = format!("pointsman-{}", self.file.service);
        let kept = self.request.cookies.iter().find(|(name, _)| *name == cookie);
        let kept = kept.map(|(_, value)| &**value).filter(|value| value.starts_with(&format!("{}.", split.epoch)));
        let mint = || if split.mint && !split.key.is_empty() { kept.or(minted).map(Into::into) } else { None };
        match self.key(&split.key).or_else(mint) {
            Some(key) => {
                let salt = split.salt.unwrap_or(&rule.name);
                vec![(1.0, self.keyed(&arms, salt, &key, split.epoch).unwrap_or_else(|| self.last_resort(rule)))]
            }
            None => self.drawn(&arms, rule, 1.0),
        }
    }

    /// Cumulative weights, half-open; an arm with nobody hands on by a second hash over the others.
    fn keyed(&self, arms: &[&(Vec<&str>, u64)], salt: &str, key: &str, epoch: u32) -> Option<End> {
        let mut text = [salt.as_bytes(), b"\0", key.as_bytes()].concat();
        if epoch > 0 {
            text.extend([b"\0", epoch.to_string().as_bytes()].concat());
        }
        let (mut left, mut hash) = (arms.to_vec(), xxh3_64(&text));
        while !left.is_empty() {
            let total: u64 = left.iter().map(|arm| arm.1).sum();
            let mut point = ((u128::from(hash) * u128::from(total)) >> 64) as u64;
            let mut at = 0;
            while point >= left[at].1 {
                point -= left[at].1;
                at += 1;
            }
            let arm = left.remove(at);
            if let Some(end) = self.first(&arm.0) {
                return Some(end);
            }
            hash = xxh3_64(&[&text[..], b"\0", arm.0.join(",").as_bytes()].concat());
        }
        None
    }

    fn drawn(&self, arms: &[&(Vec<&str>, u64)], rule: &Rule, share: f64) -> Vec<(f64, End)> {
        if arms.is_empty() {
            return vec![(share, self.last_resort(rule))];
        }
        let total: u64 = arms.iter().map(|arm| arm.1).sum();
        let mut ways = Vec::new();
        for (at, arm) in arms.iter().enumerate() {
            let part = share * arm.1 as f64 / total as f64;
            match self.first(&arm.0) {
                Some(end) => ways.push((part, end)),
                None => {
                    let others: Vec<_> =
                        arms.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, arm)| *arm).collect();
                    ways.extend(self.drawn(&others, rule, part));
                }
            }
        }
        ways
    }

    /// A list: the first pool at full strength, or else the first with anybody.
    fn first(&self, list: &[&str]) -> Option<End> {
        let pools: Vec<(&Pool, Vec<&Instance>)> = list.iter().map(|name| self.members(name)).collect();
        let routable = |pool: &Pool, members: &[&Instance]| {
            members.iter().filter(|instance| taken(instance, pool.warning).is_some()).count() as u64
        };
        for full in [true, false] {
            for (pool, members) in &pools {
                let wanted = match pool.min {
                    Min::Count(count) => count,
                    Min::Percent(percent) => (members.len() as u64 * percent).div_ceil(100),
                };
                let wanted = if full { wanted.max(1) } else { 1 };
                if routable(pool, members) >= wanted {
                    return Some(self.end(pool.name, members, pool.warning));
                }
            }
        }
        None
    }

    /// The last pool's panic, then the rule's and the file's `else`, then 503.
    fn last_resort(&self, rule: &Rule) -> End {
        let last = match &rule.action {
            Action::To(list) => list.last(),
            Action::Split(split) => {
                let most = split.arms.iter().map(|arm| arm.1).max();
                split.arms.iter().rev().find(|arm| Some(arm.1) == most).and_then(|arm| arm.0.last())
            }
            Action::Redirect(_) | Action::Respond(_) => None,
        };
        if let Some(name) = last {
            let (pool, members) = self.members(name);
            match pool.panic {
                Some(true) if members.iter().any(|instance| instance.status != "maintenance") => {
                    let open = |instance: &Instance| (instance.status != "maintenance").then_some(1);
                    return End::Pool { name: pool.name.into(), levels: levels(self, &members, open), panic: true };
                }
                Some(false) => return End::Status(503, false),
                _ => {}
            }
        }
        for fallback in [rule.fallback, self.file.fallback] {
            match fallback {
                Some(Else::Status(status)) => return End::Status(status, false),
                Some(Else::Any) => {
                    if let Some(end) = self.any() {
                        return end;
                    }
                }
                None => {}
            }
        }
        End::Status(503, false)
    }

    /// Every routable instance of the service.
    fn any(&self) -> Option<End> {
        let all: Vec<&Instance> = self.instances().collect();
        all.iter().any(|instance| taken(instance, true).is_some()).then(|| self.end("any", &all, true))
    }

    fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.world.instances.iter().filter(|instance| instance.service == self.file.service)
    }

    fn end(&self, name: &str, members: &[&Instance], warning: bool) -> End {
        End::Pool {
            name: name.into(),
            levels: levels(self, members, |instance| taken(instance, warning)),
            panic: false,
        }
    }

    fn members(&self, name: &str) -> (&Pool, Vec<&Instance>) {
        let pool = self.file.pools.iter().find(|pool| pool.name == name).expect("rules name pools that there are");
        let label = self.value(Field::Label).filter(|value| !value.is_empty());
        (pool, self.instances().filter(|instance| belongs(self.file, pool, instance, label.as_deref())).collect())
    }
}

/// Whether an instance belongs to a pool, for a request with this label.
pub fn belongs(file: &File, pool: &Pool, instance: &Instance, label: Option<&str>) -> bool {
    let isolated = file.lanes.as_ref().is_some_and(|base| {
        !mentions(&pool.select, "lane") && instance.labels.get("lane").is_some_and(|lane| !base.contains(lane))
    });
    !isolated && selects(&pool.select, instance, label)
}

fn mentions(select: &Select, name: &str) -> bool {
    match select {
        Select::Is(label, _) | Select::IsNot(label, _) | Select::In(label, _) => *label == name,
        Select::Has(label) | Select::Below(label, _) | Select::Asked(label) => *label == name,
        Select::Tag(_) => false,
        Select::And(parts) | Select::Or(parts) => parts.iter().any(|part| mentions(part, name)),
        Select::Not(part) => mentions(part, name),
    }
}

fn selects(select: &Select, instance: &Instance, asked: Option<&str>) -> bool {
    let label = |name: &str| instance.labels.get(name).copied();
    match select {
        Select::Is(name, value) => label(name) == Some(value),
        Select::IsNot(name, value) => label(name) != Some(value),
        Select::In(name, values) => label(name).is_some_and(|value| values.contains(&value)),
        Select::Has(name) => label(name).is_some(),
        Select::Below(name, with) => label(name).is_some_and(|v| compare(v, with).is_some_and(Ordering::is_lt)),
        Select::Tag(tag) => instance.tags.contains(tag),
        Select::Asked(name) => asked.is_some() && label(name) == asked,
        Select::And(parts) => parts.iter().all(|part| selects(part, instance, asked)),
        Select::Or(parts) => parts.iter().any(|part| selects(part, instance, asked)),
        Select::Not(part) => !selects(part, instance, asked),
    }
}

/// The weight with which an instance takes traffic; `None`: it takes none.
fn taken(instance: &Instance, warning: bool) -> Option<u32> {
    let weight = match instance.status {
        "passing" => instance.weights.0,
        "warning" if warning => instance.weights.1,
        _ => 0,
    };
    (weight > 0).then_some(weight)
}

/// The levels of a pool, nearest first, with their loads (proportional spill, floored integers).
fn levels(case: &Case<'_>, members: &[&Instance], weight: impl Fn(&Instance) -> Option<u32>) -> Vec<Level> {
    let own = |key: &str| match key {
        "region" => case.world.region,
        _ => case.world.zone,
    };
    let prefer = &case.file.prefer;
    let rank = |instance: &Instance| -> u8 {
        if prefer.iter().all(|key| own(key).is_none()) {
            return 0;
        }
        let same = |key: &&&str| own(key).is_some() && instance.labels.get(**key).copied() == own(key);
        (prefer.len() - prefer.iter().take_while(same).count()) as u8
    };
    let mut found: BTreeMap<u8, (u64, BTreeMap<String, u32>)> = BTreeMap::new();
    for instance in members {
        let level = found.entry(rank(instance)).or_default();
        level.0 += 1;
        level.1.extend(weight(instance).map(|weight| (instance.id.clone(), weight)));
    }
    let loads = |least: u64| -> Vec<u64> {
        let last = found.len().saturating_sub(1);
        let health: Vec<u64> = (found.values().enumerate())
            .map(|(at, (total, routable))| match routable.len() as u64 {
                0 => 0,
                few if at < last && few < least => 0,
                some => (case.file.spill * 10 * some / total).clamp(1, 100),
            })
            .collect();
        let sum = health.iter().sum::<u64>().min(100);
        let (mut left, mut loads) = (100, Vec::new());
        for health in &health {
            let load = (health * 100).checked_div(sum).unwrap_or(0).min(left);
            left -= load;
            loads.push(load);
        }
        if let (Some(first), true) = (health.iter().position(|health| *health > 0), sum > 0) {
            loads[first] += left;
        }
        loads
    };
    let strict = loads(case.file.min_local);
    let loads = if strict.iter().any(|load| *load > 0) { strict } else { loads(0) };
    let level = |((rank, (_, members)), load): ((u8, (u64, _)), u64)| Level { rank, load, members };
    found.clone().into_iter().zip(loads).map(level).collect()
}

/// As versions: an optional `v`, integers, a pre-release before its release. `None`: one is none.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    let parse = |text: &str| -> Option<(Vec<u64>, Option<String>)> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre.into())));
        let plain = |pre: &str| pre.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if pre.as_ref().is_some_and(|pre: &String| !plain(pre)) {
            return None;
        }
        let mut numbers = numbers.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some((numbers, pre))
    };
    let ((a, pre_a), (b, pre_b)) = (parse(a)?, parse(b)?);
    Some(a.cmp(&b).then_with(|| match (pre_a, pre_b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(&b),
    }))
}
