//! Text to tokens.

use std::borrow::Cow;

/// One token and the bytes it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lexeme<'t> {
    pub(super) token: Token<'t>,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// Unquoted: a keyword, a field or a value.
    Word(&'t str),
    /// Quoted, escapes resolved.
    Text(Cow<'t, str>),
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Tilde,
    End,
}

/// What stopped the lexer.
#[derive(Debug, PartialEq)]
pub(super) struct Stray {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) message: String,
    pub(super) label: Option<&'static str>,
}

/// All tokens, closed by [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Lexeme<'_>>, Stray> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, end) = token(text, at, first)?;
        found.push(Lexeme { token, start: at, end });
        at = end;
    }
    found.push(Lexeme { token: Token::End, start: text.len(), end: text.len() });
    Ok(found)
}

fn token(text: &str, at: usize, first: char) -> Result<(Token<'_>, usize), Stray> {
    let two = |token: Token<'static>| Ok((token, at + 2));
    let one = |token: Token<'static>| Ok((token, at + 1));
    let rest = &text[at..];
    match first {
        '"' | '\'' => quoted(text, at, first),
        'A'..='Z' | 'a'..='z' | '0'..='9' | '_' => {
            let end = rest.find(|c| !in_word(c)).map_or(text.len(), |len| at + len);
            Ok((Token::Word(&text[at..end]), end))
        }
        _ if rest.starts_with("==") => two(Token::Equal),
        _ if rest.starts_with("!=") => two(Token::NotEqual),
        _ if rest.starts_with("<=") => two(Token::LessOrEqual),
        _ if rest.starts_with(">=") => two(Token::GreaterOrEqual),
        '<' => one(Token::Less),
        '>' => one(Token::Greater),
        '~' => one(Token::Tilde),
        '(' => one(Token::Open),
        ')' => one(Token::Close),
        '[' => one(Token::OpenList),
        ']' => one(Token::CloseList),
        ',' => one(Token::Comma),
        _ => Err(stray(text, at, first)),
    }
}

/// The characters of a WORD after its first.
pub(super) fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.:/@*+-".contains(c)
}

fn quoted(text: &str, start: usize, quote: char) -> Result<(Token<'_>, usize), Stray> {
    let body = start + 1;
    let mut resolved: Option<String> = None;
    let mut characters = text[body..].char_indices();
    while let Some((offset, c)) = characters.next() {
        let at = body + offset;
        if c == quote {
            let value = resolved.map_or(Cow::Borrowed(&text[body..at]), Cow::Owned);
            return Ok((Token::Text(value), at + 1));
        }
        if c != '\\' {
            if let Some(resolved) = &mut resolved {
                resolved.push(c);
            }
            continue;
        }
        let into = resolved.get_or_insert_with(|| text[body..at].to_owned());
        match characters.next() {
            Some((_, c @ ('\\' | '"' | '\''))) => into.push(c),
            Some((_, 'n')) => into.push('\n'),
            Some((_, 't')) => into.push('\t'),
            Some((_, c)) => {
                return Err(Stray {
                    start: at,
                    end: at + 1 + c.len_utf8(),
                    message: format!("unknown escape `\\{c}`"),
                    label: Some("known are \\\\ \\\" \\' \\n \\t; a backslash itself is written twice"),
                });
            }
            None => break,
        }
    }
    Err(Stray {
        start,
        end: text.len(),
        message: "this text has no closing quote".to_owned(),
        label: Some("begins here"),
    })
}

fn stray(text: &str, at: usize, first: char) -> Stray {
    let rest = &text[at..];
    let (len, label) = match first {
        '=' => (1, Some("equality is written `==`")),
        '&' => (if rest.starts_with("&&") { 2 } else { 1 }, Some("write `and`")),
        '|' => (if rest.starts_with("||") { 2 } else { 1 }, Some("write `or`")),
        '!' => (1, Some("write `not`")),
        '/' | '*' | '.' | '-' | '+' | ':' | '@' | '^' => (1, Some("a value that begins with this needs quotes")),
        '%' => (1, Some("a number alone is enough here")),
        _ => (first.len_utf8(), None),
    };
    Stray { start: at, end: at + len, message: format!("unexpected `{}`", &rest[..len]), label }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Token<'_>> {
        tokens(text).unwrap().into_iter().map(|l| l.token).collect()
    }

    #[test]
    fn words_take_their_punctuation_and_both_quotes_resolve_escapes() {
        assert_eq!(
            words(r#"a.b-c >= v1.2+x 'it\'s' "\t\\""#),
            [
                Token::Word("a.b-c"),
                Token::GreaterOrEqual,
                Token::Word("v1.2+x"),
                Token::Text("it's".into()),
                Token::Text("\t\\".into()),
                Token::End
            ]
        );
    }

    #[test]
    fn stray_characters_say_what_to_write() {
        for (text, at, end) in
            [("a = b", 2, 3), ("a && b", 2, 4), ("a == /x", 5, 6), ("'open", 0, 5), (r#""\d""#, 1, 3)]
        {
            let stray = tokens(text).unwrap_err();
            assert_eq!((stray.start, stray.end), (at, end), "{text}");
            assert!(stray.label.is_some(), "{text}");
        }
    }
}
