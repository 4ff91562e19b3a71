//! What `check` says of a generated world: proven findings against what was seen, witnesses against the engine.

use std::sync::Arc;

use pointsman::dry_run::check::{Named, check_against};
use pointsman::dry_run::explain::explain;
use pointsman::engine::diagnostic::{Certainty, Diagnostic, Diagnostics, Witness};
use pointsman::engine::format::traffic::TrafficLine;
use pointsman::engine::rules::lint::{Against, Catalog};
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};

use super::model::{File, World};
use super::{Assembled, Told, naive};

/// Whether all of it holds.
pub fn hold(
    world: &World,
    assembled: &Assembled,
    table: &Table,
    taken: &[String],
    told: &mut Told,
) -> Result<(), String> {
    let catalog: Catalog =
        assembled.services.iter().map(|(name, instances)| (Arc::from(*name), instances.clone())).collect();
    let against = Against { catalog: Some(&catalog), previous: None };
    let found = check_against(&assembled.set, Diagnostics(assembled.parsed.0.clone()), against, Named::default());
    for found in &found.diagnostics.0 {
        let file = world.files.iter().find(|file| file.name == found.source.name).expect("it is about one of them");
        if found.certainty == Some(Certainty::Proven) && refuted(found, world, file, taken) {
            return Err(format!("what is proven is refuted:\n{}", found.render()));
        }
        told.proven += u64::from(found.certainty == Some(Certainty::Proven));
        if let Some(witness) = &found.witness {
            told.witnesses += 1;
            confirmed(found, witness, table).map_err(|why| format!("{why}\n{}", found.render()))?;
        }
    }
    Ok(())
}

/// The nth name between backquotes in a finding's message.
fn named(found: &Diagnostic, nth: usize) -> &str {
    found.message.split('`').nth(2 * nth + 1).unwrap_or("")
}

fn refuted(found: &Diagnostic, world: &World, file: &File, taken: &[String]) -> bool {
    let members = |name: &str| -> Vec<&str> {
        let Some(pool) = file.pools.iter().find(|pool| pool.name == name) else { return Vec::new() };
        let own = world.instances.iter().filter(|instance| instance.service == file.service);
        // A pool that asks for the request's label has somebody if any label's value finds somebody.
        let labels = [None, Some("a"), Some("b"), Some("ab"), Some("base"), Some("1.2"), Some("1.3")];
        let belongs = |i: &&super::model::Instance| labels.iter().any(|label| naive::belongs(file, pool, i, *label));
        own.filter(belongs).map(|instance| instance.id.as_str()).collect()
    };
    match found.code {
        // Never reached: by one rule, by several, by contradiction.
        "W009" | "W011" | "W012" => taken.iter().any(|rule| rule == named(found, 0)),
        // The same instances.
        "W014" => members(named(found, 0)) != members(named(found, 1)),
        // Nobody.
        "W015" => !members(named(found, 0)).is_empty(),
        // Two arms overlap.
        "W017" => {
            let first = |arm: &str| arm.split(',').next().unwrap_or("").to_owned();
            let (a, b) = (members(&first(named(found, 0))), members(&first(named(found, 1))));
            !a.iter().any(|id| b.contains(id))
        }
        _ => false,
    }
}

/// Asks the engine what the witness says.
fn confirmed(found: &Diagnostic, witness: &Witness, table: &Table) -> Result<(), String> {
    let headers = witness.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let line = TrafficLine::of_url(&witness.method, &witness.url).map_err(|error| error.to_string())?;
    let line = TrafficLine { headers, client: witness.client, ..line };
    let request = line.request().map_err(|error| error.to_string())?;
    let trusted = table.router.trusts(&request.host, &request.path, request.client);
    let said = explain(table, &request.view(trusted), Draw(7), Millis(0));
    if said.file.as_ref().map(|file| &file.name) != Some(&found.source.name) {
        return Err("the witness is another file's".into());
    }
    let rule = said.result.rule;
    let holds = match found.code {
        "W009" | "W011" => rule.is_some() && rule.as_deref() != Some(named(found, 0)),
        "W031" => rule.is_none(),
        _ => witness.outcome == format!("goes to `{}`", rule.as_deref().unwrap_or_default()),
    };
    if holds { Ok(()) } else { Err(format!("the witness goes to {rule:?}")) }
}
