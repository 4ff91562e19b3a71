//! Pools as rules use them: one slot for each distinct use, with its cap and floor resolved (SEMANTICS.md, *Ejection*).

use super::Lowering;
use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span, Spanned};
use crate::engine::expr::ast::Field;
use crate::engine::expr::{self, Written};
use crate::engine::label::Text;
use crate::engine::policy::{Balance, Min, WHOLE};
use crate::engine::route::router::{PoolSlot, RouterPool};

impl Lowering<'_, '_> {
    /// Slots of a list; all but the last are backed by what follows.
    pub(super) fn list(&mut self, names: &[Spanned<Text>], backed: bool, balance: &Balance) -> Vec<PoolSlot> {
        let last = names.len().saturating_sub(1);
        names.iter().enumerate().map(|(at, name)| self.pool(name, backed || at < last, balance)).collect()
    }

    /// The slot of a pool that gets copies. As if it were backed: nobody who is ejected is kept for the sake of copies.
    pub(super) fn mirror_pool(&mut self, name: &Spanned<Text>) -> PoolSlot {
        let balance = self.file.policies.balance.clone().unwrap_or_default();
        self.pool(name, true, &balance)
    }

    fn pool(&mut self, name: &Spanned<Text>, backed: bool, balance: &Balance) -> PoolSlot {
        let Some(spec) = self.file.pools.iter().position(|pool| pool.name.value == name.value) else {
            let message = format!("no pool is named `{}`", name.value);
            self.out.push(Diagnostic::error("E012", &self.file.source, name.span, message));
            return 0;
        };
        self.pool_slot(spec, backed, balance)
    }

    /// The slot for one way of using a pool.
    fn pool_slot(&mut self, spec: usize, backed: bool, balance: &Balance) -> PoolSlot {
        let file = self.file;
        let pool = &file.pools[spec];
        let balance = pool.balance.as_ref().unwrap_or(balance);
        let same = |known: &RouterPool| known.spec == Some(spec) && known.backed == backed && known.balance == *balance;
        if let Some(slot) = self.pools.iter().position(same) {
            return slot as PoolSlot;
        }
        let refers: Vec<(Field, Text)> =
            pool.select.references().into_iter().map(|(field, name)| (field.clone(), name.into())).collect();
        let labels = refers.iter().map(|(_, name)| self.label(name, pool.name.span)).collect();
        let key = self.hash_key(balance, pool.name.span);
        let eject = file.eject.as_ref();
        let percent = pool.max_ejection_percent.or_else(|| eject.and_then(|eject| eject.max_ejection_percent));
        let floor = pool.min_routable.or_else(|| eject.and_then(|eject| eject.min_routable));
        self.pools.push(RouterPool {
            name: Text::clone(&pool.name.value),
            spec: Some(spec),
            select: Some(pool.select.clone()),
            refers,
            labels,
            min: pool.min,
            accept: pool.accept,
            panic: pool.panic.filter(|_| !backed),
            balance: balance.clone(),
            key,
            backed,
            max_ejection_percent: percent.unwrap_or(if backed { WHOLE } else { WHOLE / 2 }),
            min_routable: floor.unwrap_or(u32::from(!backed)),
        });
        (self.pools.len() - 1) as PoolSlot
    }

    /// Pools that no rule uses, so that they can be seen; and `any`.
    pub(super) fn remaining_pools(&mut self) {
        let balance = self.file.policies.balance.clone().unwrap_or_default();
        for spec in 0..self.file.pools.len() {
            if !self.pools.iter().any(|pool| pool.spec == Some(spec)) {
                self.pool_slot(spec, false, &balance);
            }
        }
        let file = self.file;
        let eject = file.eject.as_ref();
        let any = RouterPool {
            name: "any".into(),
            spec: None,
            select: None,
            refers: Vec::new(),
            labels: Vec::new(),
            min: Min::default(),
            accept: (true, true),
            panic: None,
            key: self.hash_key(&balance, file.service.span),
            balance,
            backed: false,
            max_ejection_percent: eject.and_then(|eject| eject.max_ejection_percent).unwrap_or(WHOLE / 2),
            min_routable: eject.and_then(|eject| eject.min_routable).unwrap_or(1),
        };
        self.pools.push(any);
    }

    /// The slot of the field that `hash(KEY)` names. The reader has looked at it already.
    fn hash_key(&mut self, balance: &Balance, span: Span) -> Option<u32> {
        let Balance::Hash(text) = balance else { return None };
        let source = Source::new("hash", &**text);
        let mut found = Diagnostics::default();
        let field = expr::parse_field(&Written::whole(&source), None, &mut found);
        found.0.into_iter().for_each(|problem| self.out.push(problem));
        field.map(|field| self.slot(&field, span))
    }

    /// Key fields of these pools, each once.
    pub(super) fn keys_of(&self, slots: impl IntoIterator<Item = PoolSlot>) -> Vec<u32> {
        let mut keys: Vec<u32> = slots.into_iter().filter_map(|slot| self.pools[slot as usize].key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}
