//! One request explained: the live functions with a recorder, then the table's figures beside what they chose.

mod messages;

use super::settle::settle;
use crate::engine::balance::{PassedOver, Picked};
use crate::engine::format::explanation::{
    CandidateNote, Explanation, FileNote, HashNote, Kind, LeftOutNote, LevelNote, PassedOverNote, PickNote,
    PoliciesNote, PoolNote, RequestNote, ResortNote, ResultNote,
};
use crate::engine::format::limits::LimitsNote;
use crate::engine::format::traffic::shown_draw;
use crate::engine::request::RequestView;
use crate::engine::route::visited::{Visited, lists, visited};
use crate::engine::route::{
    Action, Choice, Decision, FileIdx, Outcome, PoolSlot, RouterFile, RulePolicies, Scratch, Step, cookie, decide,
};
use crate::engine::rules::Else;
use crate::engine::table::{LeftOut, Level, Method, Pool, Table};
use crate::engine::time::{Draw, Millis};
use crate::engine::trace::Recorder;

/// Decides and picks as the proxy would with this luck, and says why. Takes no probing permit and changes nothing.
#[must_use]
pub fn explain(table: &Table, request: &RequestView<'_>, draw: Draw, now: Millis) -> Explanation {
    let mut recorder = Recorder::default();
    let decision = decide(table, request, draw, &mut Scratch::new(), &mut recorder);
    let (end, picked) = settle(table, &decision, draw, now, &mut recorder);
    let told = Told { table, decision: &decision, end, picked, now };
    Explanation {
        request: request_note(request),
        result: told.result(request.scheme == "https"),
        file: told.file(&mut recorder),
        labels: std::mem::take(&mut recorder.labels),
        rules: std::mem::take(&mut recorder.rules),
        split: recorder.split.take(),
        resort: told.resort(),
        pools: told.pools(),
        pick: told.pick(&recorder),
        policies: told.policies(),
        message: told.in_force().and_then(|policies| messages::message(table, &decision, policies, request, draw)),
        generation: table.generation,
        draw: shown_draw(draw),
    }
}

/// What there is to tell from.
struct Told<'t> {
    table: &'t Table,
    decision: &'t Decision,
    end: Outcome,
    picked: Option<Picked>,
    now: Millis,
}

impl<'t> Told<'t> {
    fn router_file(&self) -> Option<(FileIdx, &'t RouterFile)> {
        let file = self.decision.file?;
        Some((file, &self.table.router.files[file as usize]))
    }

    fn choice(&self) -> Option<Choice> {
        match self.end {
            Outcome::Pool(choice) => Some(choice),
            Outcome::Redirect | Outcome::Respond | Outcome::Refuse { .. } => None,
        }
    }

    fn id(&self, endpoint: u32) -> String {
        let file = self.decision.file.unwrap_or(0);
        self.table.endpoint(file, endpoint).instance.id.to_string()
    }

    fn result(&self, secure: bool) -> ResultNote {
        let mut result = ResultNote::default();
        if let Outcome::Refuse { status, detail } = self.end {
            (result.status, result.detail) = (Some(status), Some(detail.word().into()));
        }
        let Some((file_idx, file)) = self.router_file() else { return result };
        result.service = Some(file.service.to_string());
        let rule = self.decision.rule.map(|rule| &file.rules[rule as usize]);
        result.rule = rule.map(|rule| rule.name.to_string());
        match rule.map(|rule| &rule.action) {
            Some(Action::Redirect { .. } | Action::Respond { .. }) if matches!(self.end, Outcome::Refuse { .. }) => {}
            Some(Action::Redirect { status, location }) => {
                (result.outcome, result.status) = (Kind::Redirect, Some(*status));
                result.detail = Some(location.to_string());
            }
            Some(Action::Respond { status, .. }) => (result.outcome, result.status) = (Kind::Respond, Some(*status)),
            Some(Action::Split(split)) => {
                let arm = self.choice().map_or(self.decision.arm, |choice| self.decision.arm_of(choice));
                result.arm = arm.map(|arm| split.arms[arm as usize].name.to_string());
                result.rerouted = self.choice().is_some_and(|choice| self.decision.is_rerouted(choice));
            }
            Some(Action::To(_)) | None => {}
        }
        if let (Some(choice), Some(picked)) = (self.choice(), self.picked) {
            let instance = &self.table.endpoint(file_idx, picked.endpoint).instance;
            result.outcome = Kind::Routed;
            result.pool = Some(file.pool_name(choice.pool).to_string());
            result.instance = Some(instance.id.to_string());
            result.address = Some(instance.addr.to_string());
            result.level = Some(picked.level);
            // With a refusal there is nothing to stick to, so none goes out.
            result.set_cookie = self.decision.mint.map(|mint| {
                String::from_utf8_lossy(cookie::set_cookie_value(&file.cookie, &mint, secure).as_bytes()).into_owned()
            });
        }
        result
    }

    fn file(&self, recorder: &mut Recorder) -> Option<FileNote> {
        let (at, file) = self.router_file()?;
        let service = self.table.files[at as usize].service.as_ref();
        Some(FileNote {
            name: file.ruleset.source.name.clone(),
            service: file.service.to_string(),
            claim: recorder.claim.take()?,
            catalog_index: service.map(|service| service.catalog_index),
            instances: service.map_or(0, |service| service.endpoints.len()),
        })
    }

    fn resort(&self) -> Vec<ResortNote> {
        let Some((_, file)) = self.router_file() else { return Vec::new() };
        let rule = self.decision.rule.map(|rule| &file.rules[rule as usize]);
        if rule.is_some_and(|rule| matches!(rule.action, Action::Redirect { .. } | Action::Respond { .. })) {
            return Vec::new();
        }
        let mut notes: Vec<ResortNote> =
            visited(self.table, self.decision, &self.end).iter().map(|seen| visited_note(file, seen)).collect();
        if notes.last().is_some_and(|note| note.taken) {
            return notes;
        }
        if let Some((pool, panic)) = rule.and_then(|rule| rule.panic) {
            let taken = self.choice().is_some_and(|choice| choice.step == Step::Panic);
            let why =
                if taken { "any member, whatever its health".into() } else { format!("{panic:?}").to_lowercase() };
            notes.push(ResortNote {
                step: word(Step::Panic),
                pool: Some(file.pool_name(pool).to_string()),
                taken,
                why,
            });
            if taken {
                return notes;
            }
        }
        for (step, fallback) in [(Step::RuleElse, rule.and_then(|rule| rule.fallback)), (Step::FileElse, file.fallback)]
        {
            let Some(fallback) = fallback else { continue };
            let taken = match fallback {
                Else::Any => self.choice().is_some_and(|choice| choice.step == step),
                Else::Status(_) => self.choice().is_none(),
            };
            let (pool, why) = match fallback {
                Else::Any => {
                    (Some("any".into()), if taken { "every routable instance" } else { "nobody is routable" }.into())
                }
                Else::Status(status) => (None, format!("status {status}")),
            };
            notes.push(ResortNote { step: word(step), pool, taken, why });
            if taken {
                return notes;
            }
        }
        if let Outcome::Refuse { status, detail } = self.end {
            let why = format!("status {status} {}", detail.word());
            notes.push(ResortNote { step: "refuse".into(), pool: None, taken: true, why });
        }
        notes
    }

    fn pools(&self) -> Vec<PoolNote> {
        let Some((file, _)) = self.router_file() else { return Vec::new() };
        let all = lists(self.table, self.decision).into_iter().map(|(pool, slot)| (pool, slot.unwrap_or(pool)));
        let mut slots: Vec<(PoolSlot, PoolSlot)> = Vec::new();
        for slot in all.chain(self.choice().map(|choice| (choice.pool, choice.slot))) {
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots.into_iter().map(|(pool, slot)| self.pool(file, pool, slot)).collect()
    }

    fn pool(&self, file: FileIdx, compiled: PoolSlot, slot: PoolSlot) -> PoolNote {
        let spec = &self.table.router.files[file as usize].pools[compiled as usize];
        let pool: &Pool = self.table.pool(file, slot);
        let left_out = self.table.left_out(file, slot);
        PoolNote {
            name: pool.name.to_string(),
            select: spec.select.as_ref().map(|select| select.text.to_string()),
            variant: pool.variant.iter().map(ToString::to_string).collect(),
            catalog: pool.members.len() as u32,
            routable: pool.routable,
            min: pool.min,
            backed: spec.backed,
            balance: pool.balance.clone(),
            max_ejection_percent: spec.max_ejection_percent,
            min_routable: spec.min_routable,
            levels: pool.levels.iter().map(|level| self.level(file, pool, level)).collect(),
            left_out: left_out.iter().map(|(at, why)| self.left_out(*at, why)).collect(),
        }
    }

    fn level(&self, file: FileIdx, pool: &Pool, level: &Level) -> LevelNote {
        let costs = matches!(level.method, Method::Ewma { .. });
        let warming = pool.warming(self.now);
        let candidates = level.candidates.iter().map(|candidate| {
            let endpoint = self.table.endpoint(file, candidate.endpoint);
            let live = &endpoint.live;
            CandidateNote {
                id: endpoint.instance.id.to_string(),
                weight: candidate.weight,
                in_flight: live.in_flight(),
                eject_refused: candidate.refused,
                slow_start: warming.and_then(|warming| warming.chance(live.first_routable())),
                cost: costs.then(|| live.cost_micros(self.now)).flatten().map(|micros| micros as u64),
            }
        });
        let waits = level.waits.map(|until| until.since(self.now));
        LevelNote { rank: level.rank, load: level.load, waits, catalog: level.total, candidates: candidates.collect() }
    }

    fn left_out(&self, endpoint: u32, why: &LeftOut) -> LeftOutNote {
        let words = match why {
            LeftOut::Lane { label, value } => format!("{label}={value}"),
            LeftOut::Status { status } => status.word().into(),
            LeftOut::Weight => "weight 0".into(),
            LeftOut::Drained => "drained".into(),
            LeftOut::CheckFailing { last: None } => "its check fails".into(),
            LeftOut::CheckFailing { last: Some(last) } => format!("its check fails: {last}"),
            LeftOut::AwaitsCheck { last: None } => "waits for its first passing check".into(),
            LeftOut::AwaitsCheck { last: Some(last) } => format!("waits for its first passing check: {last}"),
            LeftOut::Ejected { until } if until.0 > self.now.0 => {
                format!("ejected for another {} ms", until.since(self.now))
            }
            LeftOut::Ejected { .. } => "ejected, waits for a probe".into(),
            LeftOut::Probing => "being probed".into(),
        };
        let reason = serde_json::to_value(why).unwrap_or_default();
        LeftOutNote { id: self.id(endpoint), why: words, reason }
    }

    fn pick(&self, recorder: &Recorder) -> Option<PickNote> {
        let (picked, choice, (at, file)) = (self.picked?, self.choice()?, self.router_file()?);
        Some(PickNote {
            pool: file.pool_name(choice.pool).to_string(),
            level: picked.level,
            levels: recorder.levels.clone(),
            compared: recorder.compared.map(|two| two.named(|endpoint| self.id(endpoint))),
            key: self.key(choice, recorder),
            passed_over: recorder.passed_over.iter().map(|(endpoint, why)| self.passed_over(*endpoint, *why)).collect(),
            panic: picked.panic,
            turns: !picked.panic
                && !picked.probe
                && self.table.pool(at, choice.slot).balance == crate::engine::policy::Balance::RoundRobin,
            instance: self.id(picked.endpoint),
        })
    }

    /// What a pool with `hash(KEY)` went by.
    fn key(&self, choice: Choice, recorder: &Recorder) -> Option<HashNote> {
        let (file, _) = self.router_file()?;
        let slot = self.table.pool(file, choice.slot).key?;
        let (_, field, value) = recorder.keys.iter().find(|(of, ..)| *of == slot)?;
        let placed = recorder.placed;
        Some(HashNote {
            field: field.clone(),
            value: value.clone(),
            hash: placed.map(|placed| format!("{:016x}", placed.hash)),
            entry: placed.map(|placed| (placed.entry, placed.size)),
            again: placed.map_or(0, |placed| placed.again),
        })
    }

    fn passed_over(&self, endpoint: u32, why: PassedOver) -> PassedOverNote {
        let why = match why {
            PassedOver::Tried => "tried already".into(),
            PassedOver::NotRoutable => "not routable any more".into(),
            PassedOver::Failing => "its last answer was a failure".into(),
            PassedOver::Overloaded => "over 125% of the mean load".into(),
            PassedOver::SlowStart(chance) => format!("slow start, kept with {}%", chance / 10_000),
        };
        PassedOverNote { id: self.id(endpoint), why }
    }

    fn in_force(&self) -> Option<&'t RulePolicies> {
        let (_, file) = self.router_file()?;
        Some(self.decision.rule.map_or(&file.policies, |rule| &file.rules[rule as usize].policies))
    }

    fn policies(&self) -> Option<PoliciesNote> {
        let ((_, file), policies) = (self.router_file()?, self.in_force()?);
        Some(PoliciesNote {
            timeout: policies.timeouts,
            retry: policies.retry.clone(),
            eject: file.eject.clone(),
            prefer: file.locality.prefer.iter().map(ToString::to_string).collect(),
            spill: file.locality.spill,
            failback: file.locality.failback,
            limits: LimitsNote::of(file, policies),
        })
    }
}

fn request_note(request: &RequestView<'_>) -> RequestNote {
    let query = request.query.map_or(String::new(), |query| format!("?{query}"));
    RequestNote {
        method: request.method.to_string(),
        scheme: request.scheme.into(),
        host: request.host.into(),
        path: format!("{}{query}", request.path),
        client: request.client.to_string(),
        trusted: request.trusted,
    }
}

fn visited_note(file: &RouterFile, seen: &Visited) -> ResortNote {
    let state = seen.state;
    let counts = format!("{} of {} routable", state.routable, state.members);
    let why = match (seen.slot, seen.taken) {
        (None, _) => "no instance has these label values".into(),
        (_, false) if state.routable >= state.min => format!("{counts}, but it proved empty"),
        (_, false) => format!("{counts}, wants {}", state.min),
        (_, true) => counts,
    };
    let pool = Some(file.pool_name(seen.pool).to_string());
    ResortNote { step: word(seen.step), pool, taken: seen.taken, why }
}

fn word(step: Step) -> String {
    step.word().into()
}

#[cfg(test)]
mod tests;
