//! What the rule changes in this request and its answer, by the functions that change it live.

use http::HeaderValue;

use crate::engine::format::explanation::{CarriedNote, EditKind, EditNote, MessageNote, MirrorNote};
use crate::engine::request::RequestView;
use crate::engine::route::propagate::{Carry, carried};
use crate::engine::route::{Change, Decision, Edit, Outcome, Reader, RouterFile, RulePolicies, Scratch, Values};
use crate::engine::table::Table;
use crate::engine::time::Draw;

/// `None`: nothing is changed.
pub(super) fn message(
    table: &Table,
    decision: &Decision,
    policies: &RulePolicies,
    request: &RequestView<'_>,
    draw: Draw,
) -> Option<MessageNote> {
    let file = &*table.router.files[decision.file? as usize];
    let message = &policies.message;
    let mut note = MessageNote::default();
    if let Some(rewrite) = &message.rewrite {
        let path = rewrite.path.as_ref().and_then(|prefix| prefix.replaced(&table.router, request));
        let query = request.query.map_or(String::new(), |query| format!("?{query}"));
        note.target = path.map(|path| format!("{path}{query}"));
        note.host = rewrite.host.as_ref().map(|host| lossy(host.as_bytes()));
    }
    let goes = matches!(decision.outcome, Outcome::Pool(_));
    note.mirror = message.mirror.filter(|_| goes).map(|mirror| MirrorNote {
        pool: file.pool_name(mirror.pool).to_string(),
        share: mirror.share,
        copied: mirror.takes(draw),
    });
    let mut scratch = Scratch::new();
    let mut reader = Reader::begin(request, &file.fields, &mut scratch);
    note.carried = carried(file, &mut reader).iter().map(|carry| carried_note(file, carry)).collect();
    if let Some(edits) = &message.headers {
        let values = edits.read(&mut reader);
        note.request = notes(&edits.request, &values);
        note.response = notes(&edits.response, &values);
    }
    (note != MessageNote::default()).then_some(note)
}

fn carried_note(file: &RouterFile, carry: &Carry) -> CarriedNote {
    let propagated = &file.propagate[carry.at];
    let text = |value: &HeaderValue| lossy(value.as_bytes());
    let encoded = carry.encoded.as_ref().map(text);
    CarriedNote {
        header: propagated.header.as_ref().filter(|_| carry.plain.is_some()).map(ToString::to_string),
        value: carry.plain.as_ref().map(text).unwrap_or_default(),
        baggage: propagated.baggage.as_ref().zip(encoded).map(|(member, value)| format!("{member}={value}")),
    }
}

fn notes(edit: &Edit, values: &Values) -> Vec<EditNote> {
    let note = |change: Change<'_>| {
        let (kind, name, value) = match change {
            Change::Remove(name) => (EditKind::Remove, name, None),
            Change::Set(name, value) => (EditKind::Set, name, Some(value)),
            Change::Add(name, value) => (EditKind::Add, name, Some(value)),
        };
        EditNote { kind, name: name.to_string(), value: value.map(|value| lossy(value.as_bytes())) }
    };
    edit.changes(values).map(note).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
