//! What follows a field: the operator and its operand, checked against what the field holds.

use ipnet::IpNet;

use super::ast::{ExprKind, Field, Op, Operand, Ordering, Test, Version};
use super::fields::Kind;
use super::lexer::Token;
use super::parser::{KEYWORDS, Parser, Side};
use super::{error, pattern, version};
use crate::engine::diagnostic::nearest;
use crate::engine::label::Text;

/// A literal (or a reference) and where it stands in the expression.
struct Val {
    text: String,
    quoted: bool,
    at: (usize, usize),
}

/// An operator and whether it was written negated.
enum Sign {
    Exists,
    Equal,
    In,
    Matches,
    Starts,
    Ends,
    Contains,
    Under,
    Order(Ordering),
    Requirement,
}

impl Sign {
    /// Whether a field of this kind takes it.
    fn fits(&self, kind: Kind) -> bool {
        match kind {
            Kind::Text => true,
            Kind::List => matches!(self, Self::Exists | Self::Contains),
            Kind::Address => matches!(self, Self::Exists | Self::Equal | Self::In),
        }
    }
}

impl Parser<'_, '_> {
    /// The operator after `field`, and whether it is negated.
    pub(super) fn operation(&mut self, field: &Field, field_at: (usize, usize)) -> Option<(Op, bool)> {
        let start = self.start();
        let (sign, negated) = self.sign()?;
        let sign_at = (start, self.end());
        let kind = field.kind();
        let fits = sign.fits(kind);
        if !fits {
            let word = &self.written.text[sign_at.0..sign_at.1];
            let name = &self.written.text[field_at.0..field_at.1];
            let (what, label) = match kind {
                Kind::List => ("a list", "use `contains`"),
                _ => ("an address", "use `==`, `!=` or `in`"),
            };
            let message = format!("`{name}` is {what}, which `{word}` does not take");
            self.problem(error(self.written, "E022", sign_at, message).label(label));
        }
        let op = self.operand(sign, if fits { kind } else { Kind::Text }, field)?;
        Some((op, negated))
    }

    fn sign(&mut self) -> Option<(Sign, bool)> {
        let plain = match self.peek() {
            Token::Equal => Some((Sign::Equal, false)),
            Token::NotEqual => Some((Sign::Equal, true)),
            Token::Less => Some((Sign::Order(Ordering::Less), false)),
            Token::LessOrEqual => Some((Sign::Order(Ordering::LessOrEqual), false)),
            Token::Greater => Some((Sign::Order(Ordering::Greater), false)),
            Token::GreaterOrEqual => Some((Sign::Order(Ordering::GreaterOrEqual), false)),
            Token::Tilde => Some((Sign::Requirement, false)),
            Token::Word("exists") => Some((Sign::Exists, false)),
            Token::Word("under") => Some((Sign::Under, false)),
            _ => None,
        };
        if let Some(plain) = plain {
            self.advance();
            return Some(plain);
        }
        let negated = self.take_word("not");
        let sign = match self.peek() {
            Token::Word("in") => Sign::In,
            Token::Word("matches") => Sign::Matches,
            Token::Word("starts") => Sign::Starts,
            Token::Word("ends") => Sign::Ends,
            Token::Word("contains") => Sign::Contains,
            Token::Word("exists" | "under") if negated => {
                self.syntax(
                    "expected `in`, `matches`, `starts`, `ends` or `contains`",
                    Some("put `not` in front of the test"),
                );
                return None;
            }
            other => {
                let slip = match other {
                    Token::Word(word) => {
                        nearest(&word.to_lowercase(), KEYWORDS).map(|near| format!("did you mean `{near}`?"))
                    }
                    _ => None,
                };
                self.syntax("expected an operator", slip.as_deref());
                return None;
            }
        };
        self.advance();
        Some((sign, negated))
    }

    fn operand(&mut self, sign: Sign, kind: Kind, field: &Field) -> Option<Op> {
        Some(match sign {
            Sign::Exists => Op::Exists,
            Sign::Equal => self.equal(kind)?,
            Sign::In => self.list(kind)?,
            Sign::Matches => self.matches()?,
            Sign::Starts => Op::Starts(self.literal()?.into()),
            Sign::Ends => Op::Ends(self.literal()?.into()),
            Sign::Contains => Op::Contains(self.literal()?.into()),
            Sign::Under => self.under(field)?,
            Sign::Order(order) => {
                let value = self.value()?;
                self.refuse_reference(&value);
                let version = Version::parse(&value.text);
                if version.is_none() {
                    self.problem(
                        error(self.written, "E023", value.at, format!("`{}` is not a version", value.text))
                            .label("`<`, `<=`, `>` and `>=` compare versions"),
                    );
                }
                Op::Order(order, version.unwrap_or(Version { numbers: Vec::new(), pre: None }))
            }
            Sign::Requirement => {
                let value = self.quoted("a requirement")?;
                match version::requirement(&value.text) {
                    Ok(requirement) => Op::Requirement(requirement),
                    Err(why) => {
                        let message = format!("`{}` is not a version requirement", value.text);
                        self.problem(error(self.written, "E023", value.at, message).label(why));
                        Op::Exists
                    }
                }
            }
        })
    }

    fn equal(&mut self, kind: Kind) -> Option<Op> {
        let value = self.value()?;
        if kind == Kind::Address {
            return Some(Op::InNetworks(self.network(&value, false).into_iter().collect()));
        }
        match value.text.strip_prefix("label.") {
            Some(name) if !value.quoted && self.side == Side::Instance => {
                Some(Op::Equal(Operand::RequestLabel(name.into())))
            }
            _ => {
                self.refuse_reference(&value);
                Some(Op::Equal(Operand::Text(value.text.into())))
            }
        }
    }

    fn list(&mut self, kind: Kind) -> Option<Op> {
        if self.take_word("file") {
            self.expect(&Token::Open, "`(`")?;
            let path = self.quoted("the path of a file")?;
            self.expect(&Token::Close, "`)`")?;
            return Some(Op::InFile(path.text.into()));
        }
        if self.peek() != &Token::OpenList {
            self.syntax("expected `[` or `file(`", None);
            return None;
        }
        self.advance();
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if self.take(&Token::CloseList) {
                break;
            }
            self.expect(&Token::Comma, "`,` or `]`")?;
        }
        for value in &values {
            self.refuse_reference(value);
        }
        Some(match kind {
            Kind::Address => Op::InNetworks(values.iter().filter_map(|value| self.network(value, true)).collect()),
            _ => Op::In(values.into_iter().map(|value| Text::from(value.text)).collect()),
        })
    }

    fn matches(&mut self) -> Option<Op> {
        let value = self.quoted("a pattern")?;
        if let Err(why) = pattern(&value.text) {
            self.problem(error(self.written, "E024", value.at, "this pattern cannot be used").label(why));
        }
        Some(Op::Matches(value.text.into()))
    }

    fn under(&mut self, field: &Field) -> Option<Op> {
        let value = self.value()?;
        self.refuse_reference(&value);
        if *field == Field::Path && !value.text.starts_with('/') {
            let message = format!("no path is under `{}`", value.text);
            self.problem(error(self.written, "E016", value.at, message).label("a path begins with `/`"));
        }
        let trimmed = value.text.trim_end_matches('/');
        Some(Op::Under(if trimmed.is_empty() { "/".into() } else { trimmed.into() }))
    }

    /// `"canary" in tags`, with the value already known to stand first.
    pub(super) fn value_in_field(&mut self) -> Option<Test> {
        let value = self.value()?;
        self.refuse_reference(&value);
        let negated = self.take_word("not");
        if !self.take_word("in") {
            self.syntax("expected `in`", Some("a field comes first: `field == \"value\"`"));
            return None;
        }
        let start = self.start();
        let field = self.field()?;
        if field.kind() == Kind::Address {
            let message = "an address is not looked for as text";
            self.problem(error(self.written, "E022", (start, self.end()), message).label("write `client.ip in [...]`"));
        }
        Some(Test { field, op: Op::Contains(value.text.into()), negated })
    }

    /// `percent(cookie.uid) < 5`, with `percent (` already seen.
    pub(super) fn percent(&mut self) -> Option<ExprKind> {
        let start = self.start();
        self.advance();
        self.advance();
        let mut fields = Vec::new();
        loop {
            let at = self.start();
            let field = self.field()?;
            if field.kind() == Kind::List {
                self.problem(error(self.written, "E022", (at, self.end()), "a list has no share"));
            }
            fields.push(field);
            if self.take(&Token::Close) {
                break;
            }
            self.expect(&Token::Comma, "`,` or `)`")?;
        }
        if self.side == Side::Instance {
            let message = "`percent` is a share of requests; pools select instances";
            self.problem(error(self.written, "E026", (start, self.end()), message).label("ask for it in `when`"));
        }
        let at_least = match self.peek() {
            Token::Less => false,
            Token::GreaterOrEqual => true,
            _ => {
                self.syntax("expected `<` or `>=`", None);
                return None;
            }
        };
        self.advance();
        let value = self.value()?;
        let share = if value.quoted { None } else { crate::engine::units::percent(&value.text) };
        if share.is_none() {
            let message = format!("`{}` is not a number from 0 to 100", value.text);
            self.problem(error(self.written, "E028", value.at, message).label("at most four decimals"));
        }
        Some(ExprKind::Percent { fields, at_least, share: share.unwrap_or(0) })
    }

    /// A value that may not be a reference.
    fn literal(&mut self) -> Option<String> {
        let value = self.value()?;
        self.refuse_reference(&value);
        Some(value.text)
    }

    fn value(&mut self) -> Option<Val> {
        let start = self.start();
        match self.peek().clone() {
            Token::Word(word) if KEYWORDS.contains(&word) => {
                self.syntax(
                    &format!("`{word}` is a keyword"),
                    Some(&format!("as a value it needs quotes: `\"{word}\"`")),
                );
                None
            }
            Token::Word(word) => {
                self.advance();
                Some(Val { text: word.to_owned(), quoted: false, at: (start, self.end()) })
            }
            Token::Text(text) => {
                self.advance();
                Some(Val { text: text.into_owned(), quoted: true, at: (start, self.end()) })
            }
            _ => {
                self.syntax("expected a value", None);
                None
            }
        }
    }

    fn quoted(&mut self, what: &str) -> Option<Val> {
        if !matches!(self.peek(), Token::Text(_)) {
            let label = matches!(self.peek(), Token::Word(_)).then_some("it needs quotes");
            self.syntax(&format!("expected {what} in quotes"), label);
            return None;
        }
        self.value()
    }

    fn refuse_reference(&mut self, value: &Val) {
        if value.quoted || !value.text.starts_with("label.") {
            return;
        }
        let (message, label) = match self.side {
            Side::Instance => ("a request label may stand only on the right of `==`", "the text itself needs quotes"),
            Side::Request => ("only pools compare with a request label", "the text itself needs quotes"),
        };
        self.problem(error(self.written, "E025", value.at, message).label(label));
    }

    /// A block, or one address; IPv4-mapped ones unmapped, as `client.ip` is.
    fn network(&mut self, value: &Val, blocks: bool) -> Option<IpNet> {
        let found = crate::engine::units::network(&value.text).filter(|_| blocks || !value.text.contains('/'));
        if found.is_none() {
            let what = if blocks { "an address or a CIDR block" } else { "an address" };
            let mut problem = error(self.written, "E027", value.at, format!("`{}` is not {what}", value.text));
            if value.text.contains('/') && !blocks {
                problem = problem.label("blocks are asked for with `in [...]`");
            }
            self.problem(problem);
        }
        found
    }
}
