//! `--down` and `--scale`: the same catalog with some instances down, or with more or fewer of them.

use std::sync::Arc;

use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::engine::expr::ast::Expr;
use crate::engine::expr::{Written, parse_instance};
use crate::engine::instance::{Instance, Status};
use crate::engine::label::Text;
use crate::engine::selector::Selector;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot};
use crate::engine::time::Millis;

/// The most copies of an instance.
pub const MAX_COPIES: u32 = 1_000;

/// Changes to a catalog; none by default.
#[derive(Debug, Default)]
pub struct WhatIf {
    down: Vec<Selector>,
    scale: Vec<(Selector, u32)>,
}

impl WhatIf {
    /// Reads `EXPR` (who is down) and `EXPR: N` (how many of each there are). A catalog that calls an instance down
    /// says `critical`: it still counts in its pool's `min` and in its locality's spill. Of an instance that is scaled
    /// there are N, the copies named `ID#2` and so on, so that `min`, spill and the load of each come out as they would.
    ///
    /// # Errors
    /// Every expression that cannot be used.
    pub fn parse(down: &[String], scale: &[String]) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let mut what_if = Self::default();
        for text in down {
            let source = Source::new("--down", text.as_str());
            what_if.down.extend(selector(&Written::whole(&source), &source, &mut out));
        }
        for text in scale {
            let source = Source::new("--scale", text.as_str());
            let parts = text.rsplit_once(':').map(|(expr, count)| (expr, count.trim().parse::<u32>()));
            let Some((expr, Ok(count @ 0..=MAX_COPIES))) = parts else {
                let span = Span::new(0, text.len());
                let problem = Diagnostic::error("E006", &source, span, "must be `EXPR: N`, N from 0 to 1000");
                out.push(problem.label("such as `version == 1.3: 2`"));
                continue;
            };
            let expr = Source::new("--scale", expr);
            let found = selector(&Written::whole(&expr), &expr, &mut out);
            what_if.scale.extend(found.map(|found| (found, count)));
        }
        if out.has_errors() { Err(out) } else { Ok(what_if) }
    }

    /// A service's instances as they would be.
    #[must_use]
    pub fn apply(&self, service: &Text, instances: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        if self.down.is_empty() && self.scale.is_empty() {
            return instances.to_vec();
        }
        let (name, mut lives) = (Arc::clone(service), LiveSet::default());
        let picture = ServiceSnapshot::build(name, 1, instances.to_vec(), &mut lives, Millis(0));
        let mut found: Vec<(Arc<Instance>, u32)> =
            picture.endpoints.iter().map(|endpoint| (Arc::clone(&endpoint.instance), 1)).collect();
        for (selector, count) in &self.scale {
            selector.select(&picture).iter().for_each(|at| found[at as usize].1 *= count);
        }
        for selector in &self.down {
            for at in selector.select(&picture).iter() {
                Arc::make_mut(&mut found[at as usize].0).status = Status::Critical;
            }
        }
        found.into_iter().flat_map(|(instance, count)| (1..=count).map(move |nth| copy(&instance, nth))).collect()
    }
}

fn copy(instance: &Arc<Instance>, nth: u32) -> Arc<Instance> {
    if nth == 1 {
        return Arc::clone(instance);
    }
    let named = |text: &Text| Text::from(format!("{text}#{nth}"));
    Arc::new(Instance { identity: named(&instance.identity), id: named(&instance.id), ..Instance::clone(instance) })
}

fn selector(written: &Written<'_>, source: &Arc<Source>, out: &mut Diagnostics) -> Option<Selector> {
    let expr: Expr = parse_instance(written, None, out)?;
    Selector::compile(&expr)
        .map_err(|why| out.push(Diagnostic::error("E006", source, Span::new(0, source.text.len()), why)))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing;

    fn applied(down: &[&str], scale: &[&str]) -> Vec<(String, Status)> {
        let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let what_if = WhatIf::parse(&owned(down), &owned(scale)).unwrap_or_else(|out| panic!("{}", out.render()));
        let instances: Vec<_> = [("a", "1.2"), ("b", "1.3")]
            .map(|(id, version)| Arc::new(testing::instance("web", id, 80, &[("version", version)])))
            .to_vec();
        what_if.apply(&"web".into(), &instances).iter().map(|i| (i.id.to_string(), i.status)).collect()
    }

    #[test]
    fn instances_go_down_and_multiply() {
        let at = |id: &str, status| (id.to_owned(), status);
        use Status::{Critical, Passing};
        assert_eq!(applied(&[], &[]), [at("a", Passing), at("b", Passing)]);
        assert_eq!(applied(&["version == 1.3"], &[]), [at("a", Passing), at("b", Critical)]);
        assert_eq!(applied(&[], &["version == 1.3: 2", "id == a : 0"]), [at("b", Passing), at("b#2", Passing)]);
    }

    #[test]
    fn what_cannot_be_read_is_said_of_all() {
        let out = WhatIf::parse(&["version ==".into()], &["version == 1.3".into(), "id exists: 5000".into()]);
        assert_eq!(out.unwrap_err().0.len(), 3);
    }
}
