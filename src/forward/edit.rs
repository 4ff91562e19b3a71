//! What the rule in force changes in this request's messages: read while the request is as the client sent it, made
//! when its head is ready for the instance, and again on the answer. Nothing is done for a rule that changes nothing.

use std::sync::Arc;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::error::Detail;
use super::view::View;
use crate::engine::request::RequestView;
use crate::engine::route::message::Rewrite;
use crate::engine::route::propagate::{Carried, carried, carry};
use crate::engine::route::{Decision, Edits, Reader, RouterFile, RulePolicies, Scratch, Values};

/// One request's changes.
#[derive(Debug, Default)]
pub struct Changes {
    headers: Option<(Arc<Edits>, Values)>,
    /// Request labels that the instance is told.
    carried: Carried,
    /// In place of the target.
    target: Option<Uri>,
    /// In place of the Host.
    host: Option<HeaderValue>,
}

impl Changes {
    /// What is to be changed in a request that was decided so. The error: the rewritten path is none.
    pub fn of(
        view: &View,
        decision: &Decision,
        request: &RequestView<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Box<Self>>, Detail> {
        let Some(file) = decision.file else { return Ok(None) };
        let file = &*view.table.router.files[file as usize];
        let message = &in_force(file, decision).message;
        if message.headers.is_none() && message.rewrite.is_none() && file.propagate.is_empty() {
            return Ok(None);
        }
        let mut changes = Self::default();
        let mut reader = Reader::begin(request, &file.fields, scratch);
        changes.carried = carried(file, &mut reader);
        if let Some(rewrite) = &message.rewrite {
            changes.target = target(rewrite, view, request)?;
            changes.host.clone_from(&rewrite.host);
        }
        if let Some(edits) = &message.headers {
            let values = edits.read(&mut reader);
            changes.headers = Some((Arc::clone(edits), values));
        }
        Ok(Some(Box::new(changes)))
    }

    /// Whether the rule says what the Host is.
    #[must_use]
    pub fn has_host(&self) -> bool {
        self.host.is_some()
    }

    /// Makes the changes in a head that is otherwise ready for the instance. The target is taken.
    pub fn make(&mut self, file: &RouterFile, uri: &mut Uri, headers: &mut HeaderMap) {
        if let Some(target) = self.target.take() {
            *uri = target;
        }
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        carry(file, &self.carried, headers);
        if let Some((edits, values)) = &self.headers {
            edits.request.apply(headers, values);
        }
    }

    /// Whether the rules have the last word on this field of an answer.
    #[must_use]
    pub fn rule_on(&self, name: &HeaderName) -> bool {
        self.headers.as_ref().is_some_and(|(edits, _)| edits.response.names().any(|edited| edited == name))
    }

    /// The fields of the request that the rules remove, set or add to.
    pub fn edited(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().flat_map(|(edits, _)| edits.request.names())
    }

    /// Makes the changes in an answer's head.
    pub fn answer(&self, headers: &mut HeaderMap) {
        if let Some((edits, values)) = &self.headers {
            edits.response.apply(headers, values);
        }
    }
}

/// The policies in force: the rule's, or the file's when no rule matched.
#[must_use]
pub fn in_force<'f>(file: &'f RouterFile, decision: &Decision) -> &'f RulePolicies {
    decision.rule.map_or(&file.policies, |rule| &file.rules[rule as usize].policies)
}

/// The rewritten path with the client's query.
fn target(rewrite: &Rewrite, view: &View, request: &RequestView<'_>) -> Result<Option<Uri>, Detail> {
    let path = rewrite.path.as_ref().and_then(|prefix| prefix.replaced(&view.table.router, request));
    let Some(mut path) = path else { return Ok(None) };
    if let Some(query) = request.query {
        path.push('?');
        path.push_str(query);
    }
    match PathAndQuery::from_maybe_shared(bytes::Bytes::from(path)) {
        Ok(target) => Ok(Some(Uri::from(target))),
        Err(_) => Err(Detail::BadRequest),
    }
}
