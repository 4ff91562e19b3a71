//! An expression as parsed and typed. Spans are byte offsets into the file, so that `explain` and errors can point.

use std::sync::Arc;

use ipnet::IpNet;

use crate::engine::diagnostic::Span;
use crate::engine::label::Text;

/// Where it stands.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands in the file.
    pub span: Span,
    /// The source text of this part, as written; `explain` prints it.
    pub text: Text,
}

/// The forms of an expression.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// Any of them; at least two.
    Or(Vec<Expr>),
    /// All of them; at least two.
    And(Vec<Expr>),
    /// Not it.
    Not(Box<Expr>),
    /// One test on one field.
    Test(Test),
    /// `percent(a, b) < 5`: the first present field's hash is in the first (or, with `>=`, outside the first) share.
    Percent {
        /// The key fields, first present and non-empty wins; none present: false (true for `>=` is false too).
        fields: Vec<Field>,
        /// `>=` in place of `<`.
        at_least: bool,
        /// Parts per million.
        share: u32,
    },
}

/// A test: a field, an operator with its operand. A missing field makes every positive test false;
/// a `negated` test is exactly the negation.
#[derive(Clone, Debug)]
pub struct Test {
    /// What is read.
    pub field: Field,
    /// What is asked.
    pub op: Op,
    /// `!=`, `not in`, `not matches`, …
    pub negated: bool,
}

/// The operators, with operands compiled.
#[derive(Clone, Debug)]
pub enum Op {
    /// The field is present, even if empty.
    Exists,
    /// Text equality. On a list: `contains`.
    Equal(Operand),
    /// One of these texts.
    In(Arc<[Text]>),
    /// `in file("…")`: one of the lines of a file; loaded beside the rules.
    InFile(Text),
    /// `client.ip in [..]`: inside one of these networks.
    InNetworks(Arc<[IpNet]>),
    /// The whole value matches. The pattern as written; compile with `regex_automata`, anchored at both ends.
    Matches(Text),
    /// Prefix of the text.
    Starts(Text),
    /// Suffix of the text.
    Ends(Text),
    /// Substring; on a list, membership.
    Contains(Text),
    /// Segment-aware path prefix.
    Under(Text),
    /// Version order; a side that is no version makes it false.
    Order(Ordering, Version),
    /// Version requirement, as Cargo's; bare means `^`.
    Requirement(semver::VersionReq),
}

/// The right side of `==` and `!=`.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A literal.
    Text(Text),
    /// `label.NAME`, the request's label; only in pools.
    RequestLabel(Text),
}

/// `<`, `<=`, `>`, `>=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A version in the sense of RULES.md: optional `v`, integer components, pre-release before its release.
#[derive(Clone, Debug)]
pub struct Version {
    /// Integer components without trailing zeros.
    pub numbers: Vec<u64>,
    /// Dot-separated pre-release identifiers; `None` for a release.
    pub pre: Option<Vec<Text>>,
}

/// What a test reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Instance side: a label.
    Label(Text),
    /// Instance side: a built-in.
    Builtin(Builtin),
    /// Request side: `method`.
    Method,
    /// Request side: `scheme`.
    Scheme,
    /// Request side: `host`.
    Host,
    /// Request side: `path`.
    Path,
    /// Request side: `query.NAME`.
    Query(Text),
    /// Request side: `cookie.NAME`.
    Cookie(Text),
    /// Request side: `header.NAME`, lower case.
    Header(http::HeaderName),
    /// Request side: `client.ip`.
    ClientIp,
    /// Request side: `tls.sni`.
    TlsSni,
    /// Request side: `tls.client.san`, a list.
    TlsClientSan,
    /// Request side: `label.NAME`, a request label declared in `labels:`.
    RequestLabel(Text),
}

/// Built-in names of the instance side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// The list of tags.
    Tags,
    /// The shown id.
    Id,
    /// The node's name.
    Node,
    /// The address as the catalog spells it.
    Address,
    /// The port, in decimal.
    Port,
    /// The datacenter.
    Dc,
    /// passing, warning, critical, maintenance.
    Status,
}
