//! Who looks on while requests are decided, and changes nothing for them: the guard's samples, the shadow rules.

use std::rc::Rc;

use super::exchange::Exchange;
use super::samples::Sampler;
use super::shadow::{Shadow, Shadowing};
use super::view::View;
use crate::engine::request::RequestView;
use crate::engine::route::Decision;
use crate::observe::metrics::WorkerMetrics;
use crate::observe::recent::Offers;

/// What all workers' onlookers are made from. The default: nobody looks on.
#[derive(Clone, Debug, Default)]
pub struct Watching {
    /// Where samples go; `None`: the guard is off.
    pub offers: Option<Offers>,
    /// Shadow rules; `None`: there are none.
    pub shadow: Option<Shadowing>,
}

/// One worker's onlookers.
#[derive(Debug)]
pub struct Watch {
    sampler: Option<Sampler>,
    shadow: Option<Shadow>,
}

impl Watch {
    /// Those of the worker with this index; `None`: nobody, which costs a request one branch.
    #[must_use]
    pub fn new(watching: Watching, worker: usize, metrics: &Rc<WorkerMetrics>) -> Option<Box<Self>> {
        let Watching { offers, shadow } = watching;
        let sampler = offers.map(|offers| Sampler::new(offers, worker));
        let shadow = shadow.map(|shadow| Shadow::new(shadow, worker, metrics));
        (sampler.is_some() || shadow.is_some()).then(|| Box::new(Self { sampler, shadow }))
    }

    /// A request was decided. `target`: path and query as sent.
    pub fn decided(
        &self,
        exchange: &Exchange,
        view: &View,
        request: &RequestView<'_>,
        target: &str,
        decision: &Decision,
    ) {
        if let Some(shadow) = &self.shadow {
            shadow.decided(exchange, view, request, target, decision);
        }
        if let Some(sampler) = &self.sampler {
            let file = decision.file.map(|file| &*view.table.router.files[file as usize]);
            let connection = exchange.connection();
            sampler.take(connection.clock.micros(), connection.sender(), request, file, exchange.draw);
        }
    }
}
