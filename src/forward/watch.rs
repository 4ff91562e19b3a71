//! Who looks on while requests are decided, and changes nothing for them: the guard's samples.

use super::exchange::Exchange;
use super::samples::Sampler;
use super::view::View;
use crate::engine::request::RequestView;
use crate::engine::route::Decision;
use crate::observe::recent::Offers;

/// What all workers' onlookers are made from. The default: nobody looks on.
#[derive(Clone, Debug, Default)]
pub struct Watching {
    /// Where samples go; `None`: the guard is off.
    pub offers: Option<Offers>,
}

/// One worker's onlookers.
#[derive(Debug)]
pub struct Watch {
    sampler: Option<Sampler>,
}

impl Watch {
    /// Those of the worker with this index; `None`: nobody, which costs a request one branch.
    #[must_use]
    pub fn new(watching: Watching, worker: usize) -> Option<Box<Self>> {
        let Watching { offers } = watching;
        let sampler = Some(Sampler::new(offers?, worker));
        Some(Box::new(Self { sampler }))
    }

    /// A request was decided.
    pub fn decided(&self, exchange: &Exchange, view: &View, request: &RequestView<'_>, decision: &Decision) {
        if let Some(sampler) = &self.sampler {
            let file = decision.file.map(|file| &*view.table.router.files[file as usize]);
            sampler.take(exchange.connection().clock.micros(), request, file, exchange.draw);
        }
    }
}
