//! Reads Rust source far enough to know which paths it names: comments and literals are blanked, `use` trees are
//! unfolded, `crate`, `self` and `super` are resolved, names brought in by `use` are followed. Code under
//! `#[cfg(test)]` is left out: tests may reach wherever they like.

use std::collections::HashMap;

/// A path that a file names, from its root: `crate::engine::time::Millis`, `std::fs`, `tokio::spawn`.
#[derive(Debug, PartialEq, Eq)]
pub struct Reference {
    /// 1-based.
    pub line: usize,
    /// Segments; a glob import ends in `*`.
    pub path: Vec<String>,
}

/// A word or a mark, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// 1-based.
    pub line: usize,
    /// An identifier, `::`, or a single character.
    pub text: String,
}

/// Every path in `text`, which is the source of module `module` (`["engine", "time"]`; empty for the root).
pub fn references(module: &[String], text: &str) -> Vec<Reference> {
    let tokens = without_tests(&tokens(text));
    let mut scan =
        Scan { tokens: &tokens, at: 0, inline: Vec::new(), depth: 0, names: HashMap::new(), found: Vec::new() };
    scan.run(module);
    scan.found
}

/// The tokens of a source text, without comments, string and character literals.
pub fn tokens(text: &str) -> Vec<Token> {
    let blank = blank_literals(text);
    let mut out: Vec<Token> = Vec::new();
    for (index, line) in blank.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let len = match first {
                ':' if rest.starts_with("::") => 2,
                _ if word > 0 => word,
                _ => first.len_utf8(),
            };
            if !first.is_whitespace() {
                out.push(Token { line: index + 1, text: rest[..len].to_owned() });
            }
            rest = &rest[len..];
        }
    }
    out
}

struct Scan<'t> {
    tokens: &'t [Token],
    at: usize,
    /// Inline modules that are open, with the brace depth at which each ends.
    inline: Vec<(String, usize)>,
    depth: usize,
    /// What `use` brought in, by the name it has here.
    names: HashMap<String, Vec<String>>,
    found: Vec<Reference>,
}

impl Scan<'_> {
    fn run(&mut self, module: &[String]) {
        while let Some(token) = self.tokens.get(self.at) {
            match token.text.as_str() {
                "{" => self.depth += 1,
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline.retain(|(_, depth)| *depth < self.depth + 1);
                }
                "mod" if self.text(2) == "{" => {
                    self.inline.push((self.text(1).to_owned(), self.depth + 1));
                    self.at += 1;
                }
                "use" if self.text(1) != "<" => {
                    self.at += 1;
                    self.at += usize::from(self.text(0) == "::");
                    self.tree(module, &[]);
                    continue;
                }
                first if is_word(first) && self.before() != "::" && self.text(1) == "::" => {
                    self.path(module);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text.as_str())
    }

    fn before(&self) -> &str {
        self.at.checked_sub(1).map_or("", |at| self.tokens[at].text.as_str())
    }

    /// `a::b::c` in code.
    fn path(&mut self, module: &[String]) {
        let line = self.tokens[self.at].line;
        let mut segments = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && is_word(self.text(1)) {
            segments.push(self.text(1).to_owned());
            self.at += 2;
        }
        if self.text(0) == "::" {
            self.at += 1;
        }
        if let Some(full) = self.names.get(&segments[0]) {
            segments.splice(..1, full.iter().cloned());
        }
        let path = self.resolve(module, segments);
        self.found.push(Reference { line, path });
    }

    /// One tree of a `use`; stops on the `,`, `}` or `;` that ends it.
    fn tree(&mut self, module: &[String], prefix: &[String]) {
        let mut path = prefix.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            match self.text(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | ";" | "") {
                        self.tree(module, &path);
                        self.at += usize::from(self.text(0) == ",");
                    }
                    self.at += usize::from(self.text(0) == "}");
                    return;
                }
                "as" => {
                    let alias = self.text(1).to_owned();
                    self.at += 2;
                    return self.bring_in(module, line, &alias, path);
                }
                "," | "}" | ";" | "" => {
                    let name = path.last().cloned().unwrap_or_default();
                    return self.bring_in(module, line, &name, path);
                }
                word => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
            }
        }
    }

    fn bring_in(&mut self, module: &[String], line: usize, name: &str, mut path: Vec<String>) {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let path = self.resolve(module, path);
        let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name.to_owned() };
        if path.len() > 1 && name != "*" && name != "_" {
            self.names.insert(name, path.clone());
        }
        self.found.push(Reference { line, path });
    }

    fn resolve(&self, module: &[String], path: Vec<String>) -> Vec<String> {
        let mut here: Vec<String> = module.to_vec();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let mut segments = path.into_iter().peekable();
        let mut out = match segments.peek().map(String::as_str) {
            Some("crate" | "pointsman") => {
                segments.next();
                vec!["crate".to_owned()]
            }
            Some("self" | "super") => {
                while let Some("self" | "super") = segments.peek().map(String::as_str) {
                    if segments.next().is_some_and(|word| word == "super") {
                        here.pop();
                    }
                }
                here.insert(0, "crate".to_owned());
                here
            }
            _ => Vec::new(),
        };
        out.extend(segments);
        out
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Drops every item under `#[cfg(test)]`: up to the end of its braces, or its `;`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(|t| t.text.as_str()).take(MARK.len()).eq(MARK) {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len();
        let mut depth = 0usize;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(token.text.as_str(), "}" | ";") {
                break;
            }
        }
    }
    out
}

/// The text with comments and the insides of literals replaced by spaces; lines stay where they are.
fn blank_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == '/' => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        '/' if next(1) == '*' => block_comment_end(chars, at),
        '"' => quoted_end(chars, at, '"'),
        // A character, not a lifetime: 'a' and '\n', but not 'a in <'a>.
        '\'' if next(1) == '\\' || next(2) == '\'' => quoted_end(chars, at, '\''),
        'r' if !word_before || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return at;
            }
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            (at + 2 + hashes..chars.len())
                .find(|i| chars[*i..].starts_with(&close))
                .map_or(chars.len(), |i| i + close.len())
        }
        _ => at,
    }
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0usize, at);
    while i < chars.len() {
        if chars[i..].starts_with(&['/', '*']) {
            depth += 1;
            i += 2;
        } else if chars[i..].starts_with(&['*', '/']) {
            depth -= 1;
            i += 2;
            if depth == 0 {
                break;
            }
        } else {
            i += 1;
        }
    }
    i.min(chars.len())
}
