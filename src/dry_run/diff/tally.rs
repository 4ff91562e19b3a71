//! Counting over a traffic file: what repeats is kept by its shape, so that a request costs two decisions and a look-up.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::keys::KeySample;
use super::shift::{Shift, Stop};
use super::vector::shares;
use super::why::Why;
use super::{Comparison, Scratches, compare};
use crate::dry_run::command::{Explain, read_headers, url};
use crate::dry_run::replay::{Luck, Redactions};
use crate::dry_run::traffic::Captured;
use crate::dry_run::traffic::stream::{SHOWN, Tally};
use crate::engine::label::Text;
use crate::engine::route::{Decision, FileIdx, Outcome, Shape, spread};
use crate::engine::table::Table;
use crate::engine::time::Draw;

/// Pairs of shapes that are kept before they are summed up.
const MOST_PAIRS: usize = 1 << 14;

/// What comparing needs to know; shared by the threads.
#[derive(Debug)]
pub struct Scene<'t> {
    /// The rules and instances in force.
    pub old: &'t Table,
    /// Those that shall be.
    pub new: &'t Table,
    /// For the examples' draws; nothing else depends on luck.
    pub luck: Luck,
    /// Who reads what may be redacted, old and new.
    pub redactions: [Redactions; 2],
    /// What to print beside an example, old and new.
    pub explain: [Explain; 2],
}

/// From, to, why.
pub(super) type ClassKey = (Stop, Stop, Why);

/// A request of a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Example {
    /// Where it stands.
    pub line: u64,
    /// Method and URL.
    pub request: String,
    /// The command that explains where it went.
    pub before: String,
    /// The command that explains where it goes.
    pub after: String,
}

/// One thread's counts.
#[derive(Debug)]
pub struct Moves<'t> {
    pub(super) scene: &'t Scene<'t>,
    scratches: Scratches,
    known: FxHashMap<(Shape, Shape), u32>,
    pairs: Vec<Pair>,
    /// By class: how much, and the first few requests.
    pub(super) classes: BTreeMap<ClassKey, (u128, Vec<Example>)>,
    pub(super) keys: KeySample,
    /// Requests compared.
    pub(super) compared: u64,
    /// Sum of what moved, in the unit of [`Shift::moved`].
    pub(super) moved: u128,
    /// Refused: before, after, and after but not before.
    pub(super) refused: [u64; 3],
    pub(super) newly_refused: Vec<Example>,
    /// By instance: requests before and after; whether it is in another region than the proxy.
    pub(super) load: BTreeMap<Text, [f64; 2]>,
    /// Requests that cross regions, before and after.
    pub(super) crossing: [f64; 2],
    /// By side, file and rule.
    pub(super) not_replayable: BTreeMap<(usize, FileIdx, u32), u64>,
}

/// Comparisons of one shape.
#[derive(Debug)]
struct Pair {
    first: Comparison,
    shift: Shift,
    count: u64,
    /// Not every class of it has its examples yet.
    wants_examples: bool,
}

impl<'t> Moves<'t> {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(scene: &'t Scene<'t>) -> Self {
        Self {
            scene,
            scratches: Scratches::default(),
            known: FxHashMap::default(),
            pairs: Vec::new(),
            classes: BTreeMap::new(),
            keys: KeySample::default(),
            compared: 0,
            moved: 0,
            refused: [0; 3],
            newly_refused: Vec::new(),
            load: BTreeMap::new(),
            crossing: [0.0; 2],
            not_replayable: BTreeMap::new(),
        }
    }

    /// The pair of a comparison, made when it is the first of its shape.
    fn pair(&mut self, comparison: &Comparison) -> usize {
        let shapes = comparison.shapes();
        if let Some(at) = self.known.get(&shapes) {
            return *at as usize;
        }
        if self.pairs.len() >= MOST_PAIRS {
            self.sum_up();
        }
        let shift = comparison.shift(self.scene.old, self.scene.new);
        let wants_examples = !shift.moves.is_empty() || (shift.refused_after && !shift.refused_before);
        self.pairs.push(Pair { first: comparison.clone(), shift, count: 0, wants_examples });
        self.known.insert(shapes, (self.pairs.len() - 1) as u32);
        self.pairs.len() - 1
    }

    /// Adds what is kept by shape to the sums, and forgets it.
    pub(super) fn sum_up(&mut self) {
        self.known.clear();
        let scene = self.scene;
        for Pair { first, shift, count, .. } in std::mem::take(&mut self.pairs) {
            let whole = u128::from(count);
            self.moved += u128::from(shift.moved) * whole;
            for found in shift.moves {
                let class = self.classes.entry((found.from, found.to, found.why)).or_default();
                class.0 += u128::from(found.part) * whole;
            }
            let newly = shift.refused_after && !shift.refused_before;
            for (at, refused) in [shift.refused_before, shift.refused_after, newly].into_iter().enumerate() {
                self.refused[at] += if refused { count } else { 0 };
            }
            for (side, (table, decision)) in [(scene.old, &first.old), (scene.new, &first.new)].into_iter().enumerate()
            {
                self.add_load(side, table, decision, count);
            }
        }
    }

    fn add_load(&mut self, side: usize, table: &Table, decision: &Decision, count: u64) {
        let Some(file) = decision.file else { return };
        let spread = spread(table, decision);
        let home = table.place.labels.value(REGION);
        for part in &spread.parts {
            let Outcome::Pool(choice) = part.outcome else { continue };
            let requests = count as f64 * part.weight as f64 / spread.total as f64;
            for (endpoint, share) in shares(table, file, decision, choice.slot, choice.step) {
                let instance = &table.endpoint(file, endpoint).instance;
                let name = Text::from(format!("{}/{}", instance.service, instance.id));
                self.load.entry(name).or_default()[side] += requests * share;
                if home.is_some() && home != instance.labels.value(REGION) {
                    self.crossing[side] += requests * share;
                }
            }
        }
    }

    /// Keeps the request as an example where a class has too few.
    fn exemplify(&mut self, at: usize, line: u64, captured: &Captured, draw: Draw) {
        let pair = &self.pairs[at];
        let keys = pair.shift.moves.iter().map(|found| (found.from.clone(), found.to.clone(), found.why));
        let newly = pair.shift.refused_after && !pair.shift.refused_before;
        let (keys, files) = (keys.collect::<Vec<_>>(), [pair.first.old.file, pair.first.new.file]);
        let by_luck = pair.first.old.by_luck() || pair.first.new.by_luck();
        let mut wanted = false;
        for key in keys {
            let full = self.classes.get(&key).is_some_and(|class| class.1.len() >= SHOWN);
            if !full {
                let witness = if by_luck { self.witness(captured, &key, draw) } else { draw };
                let made = example(self.scene, line, captured, witness, files);
                self.classes.entry(key).or_default().1.push(made);
                wanted = true;
            }
        }
        if newly && self.newly_refused.len() < SHOWN {
            self.newly_refused.push(example(self.scene, line, captured, draw, files));
            wanted = true;
        }
        self.pairs[at].wants_examples = wanted;
    }
}

impl Moves<'_> {
    /// A draw with which luck moves the request as the class says, so that the commands show it; the request's own
    /// where none is found soon.
    fn witness(&mut self, captured: &Captured, key: &ClassKey, own: Draw) -> Draw {
        let (old, new, request) = (self.scene.old, self.scene.new, &captured.request);
        let trusts = |table: &Table| table.router.trusts(&request.host, &request.path, request.sender());
        let (view, trusted) = (request.view(trusts(old)), trusts(new));
        let draws = std::iter::once(own).chain((0..WITNESS_DRAWS).map(|nth| own.fork(WITNESS_STREAM + nth)));
        for draw in draws {
            let found = compare(old, new, &view, trusted, draw, &mut self.scratches);
            if found.stops(old, new) == (key.0.clone(), key.1.clone()) {
                return draw;
            }
        }
        own
    }
}

/// Draws that are tried for a witness.
const WITNESS_DRAWS: u64 = 2_000;
/// The stream of [`Draw`] that they come from.
const WITNESS_STREAM: u64 = 0xD1FF_0000;

/// The label whose difference makes a request cross regions.
const REGION: &str = "region";

impl Tally for Moves<'_> {
    fn request(&mut self, line: u64, captured: &Captured) {
        let scene = self.scene;
        let request = &captured.request;
        let trusts = |table: &Table| table.router.trusts(&request.host, &request.path, request.sender());
        let draw = scene.luck.of(line, captured);
        let view = request.view(trusts(scene.old));
        let found = compare(scene.old, scene.new, &view, trusts(scene.new), draw, &mut self.scratches);
        for (side, decision) in [&found.old, &found.new].into_iter().enumerate() {
            if let Some((file, rule)) = scene.redactions[side].reader(&captured.redacted, decision) {
                *self.not_replayable.entry((side, file, rule)).or_default() += 1;
                return;
            }
        }
        self.compared += 1;
        let at = self.pair(&found);
        self.pairs[at].count += 1;
        if let Some(key) = found.old.key.or(found.new.key) {
            let moved = self.pairs[at].shift.moved;
            self.keys.add(key, moved);
        }
        if self.pairs[at].wants_examples {
            self.exemplify(at, line, captured, draw);
        }
    }

    fn merge(&mut self, mut other: Self) {
        self.sum_up();
        other.sum_up();
        for (key, (part, examples)) in other.classes {
            let ours = self.classes.entry(key).or_default();
            ours.0 += part;
            first_few(&mut ours.1, examples);
        }
        first_few(&mut self.newly_refused, other.newly_refused);
        self.keys.merge(other.keys);
        self.compared += other.compared;
        self.moved += other.moved;
        self.refused.iter_mut().zip(other.refused).for_each(|(ours, theirs)| *ours += theirs);
        self.crossing.iter_mut().zip(other.crossing).for_each(|(ours, theirs)| *ours += theirs);
        for (name, theirs) in other.load {
            self.load.entry(name).or_default().iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        }
        other.not_replayable.into_iter().for_each(|(at, count)| *self.not_replayable.entry(at).or_default() += count);
    }
}

fn first_few(ours: &mut Vec<Example>, theirs: Vec<Example>) {
    ours.extend(theirs);
    ours.sort();
    ours.truncate(SHOWN);
}

fn example(scene: &Scene<'_>, line: u64, captured: &Captured, draw: Draw, files: [Option<FileIdx>; 2]) -> Example {
    let request = &captured.request;
    let command = |side: usize, table: &Table| {
        let headers = read_headers(&table.router, files[side], &request.headers);
        scene.explain[side].request(request, &headers, draw)
    };
    Example {
        line,
        request: format!("{} {}", request.method, url(request)),
        before: command(0, scene.old),
        after: command(1, scene.new),
    }
}
