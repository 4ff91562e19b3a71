//! What a keyed `limit` counts a request by.

use std::hash::BuildHasher;

use super::decision::Decision;
use super::reader::Reader;
use super::router::Router;
use super::scratch::Scratch;
use crate::engine::request::RequestView;

/// The hash of the key of the limit in force; 0 where it counts by nothing. `scratch`: the one that the request was decided
/// with. `seeds`: drawn at random, once for all who share the limit's buckets.
#[must_use]
pub fn limit_key(
    router: &Router,
    decision: &Decision,
    request: &RequestView<'_>,
    scratch: &mut Scratch,
    seeds: &impl BuildHasher,
) -> u64 {
    let Some(file) = decision.file.map(|file| &*router.files[file as usize]) else { return 0 };
    let policies = decision.rule.map_or(&file.policies, |rule| &file.rules[rule as usize].policies);
    let Some(slot) = policies.limit_key else { return 0 };
    seeds.hash_one(Reader::resume(request, &file.fields, scratch).value(slot))
}
