//! The stickiness cookie: its name, its value, and taking it out of a request again.

use std::fmt::Write as _;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::decision::Mint;
use crate::engine::label::Text;
use crate::engine::time::Draw;

/// RFC 4648's alphabet, lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// A week, in seconds.
const MAX_AGE: u32 = 604_800;

/// `pointsman-<service>`; bytes outside `[A-Za-z0-9-]` as `_hh`.
#[must_use]
pub fn name(service: &str) -> Text {
    let mut name = String::from("pointsman-");
    for byte in service.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            name.push(byte as char);
        } else {
            let _ = write!(name, "_{byte:02x}");
        }
    }
    name.into()
}

/// A cookie's value, if it has the form `<epoch>.<26 base32 characters>` with this epoch; anything else counts as absent.
#[must_use]
pub fn parse(value: &[u8], epoch: u32) -> Option<Mint> {
    let dot = value.iter().position(|byte| *byte == b'.')?;
    let id: [u8; 26] = value[dot + 1..].try_into().ok()?;
    let mut expected = [0u8; 10];
    let well_formed = id.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
    (well_formed && &value[..dot] == decimal(epoch, &mut expected)).then_some(Mint { epoch, id })
}

/// A new value from a request's luck: 130 bits of the `MINT` stream.
#[must_use]
pub fn mint(epoch: u32, draw: Draw) -> Mint {
    let mut stream = draw.fork(Draw::MINT);
    let mut id = [0u8; 26];
    for part in id.chunks_mut(12) {
        let mut bits = stream.advance();
        for byte in part {
            *byte = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
    }
    Mint { epoch, id }
}

/// The whole value of `Set-Cookie`: a week, the whole site, not for scripts; `Secure` under TLS.
#[must_use]
pub fn set_cookie_value(cookie: &str, mint: &Mint, secure: bool) -> HeaderValue {
    let mut value = Vec::with_capacity(cookie.len() + 110);
    value.extend_from_slice(cookie.as_bytes());
    value.push(b'=');
    mint.write(&mut value);
    let _ = std::io::Write::write_fmt(
        &mut value,
        format_args!("; Path=/; SameSite=Lax; HttpOnly; Max-Age={MAX_AGE}{}", if secure { "; Secure" } else { "" }),
    );
    HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).expect("name, base32 and attributes are printable ASCII")
}

/// Takes cookies out of a request, by name.
pub fn strip_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&[u8]) -> bool) {
    let kept = |field: &HeaderValue| strip(field, &is_unwanted);
    if headers.get_all(COOKIE).iter().all(|field| kept(field).is_none()) {
        return;
    }
    let fields = headers.get_all(COOKIE).iter();
    let left: Vec<HeaderValue> =
        fields.filter_map(|field| kept(field).unwrap_or_else(|| Some(field.clone()))).collect();
    headers.remove(COOKIE);
    left.into_iter().for_each(|field| {
        headers.append(COOKIE, field);
    });
}

/// What is left of one Cookie field without the named cookies. `None`: nothing to change. `Some(None)`: nothing left,
/// remove the field.
fn strip(field: &HeaderValue, is_unwanted: impl Fn(&[u8]) -> bool) -> Option<Option<HeaderValue>> {
    let ours = |member: &[u8]| is_unwanted(pair(member).0);
    if !field.as_bytes().split(|byte| *byte == b';').any(ours) {
        return None;
    }
    let mut left = Vec::with_capacity(field.len());
    for member in field.as_bytes().split(|byte| *byte == b';').filter(|member| !ours(member)) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        if !left.is_empty() {
            left.extend_from_slice(b"; ");
        }
        left.extend_from_slice(member);
    }
    if left.is_empty() {
        return Some(None);
    }
    Some(Some(HeaderValue::from_maybe_shared(bytes::Bytes::from(left)).expect("parts of a valid field are valid")))
}

/// The first cookie of a name in the request's Cookie fields.
#[must_use]
pub fn find<'r>(headers: &'r HeaderMap, name: &str) -> Option<&'r [u8]> {
    if headers.len() == headers.keys_len() {
        return find_in(headers.get(COOKIE)?.as_bytes(), name.as_bytes());
    }
    headers.get_all(COOKIE).iter().find_map(|field| find_in(field.as_bytes(), name.as_bytes()))
}

/// One pass; a member is taken apart only when it starts with the name.
fn find_in<'r>(field: &'r [u8], name: &[u8]) -> Option<&'r [u8]> {
    let mut rest = field.trim_ascii_start();
    loop {
        let end = rest.iter().position(|byte| *byte == b';');
        let member = &rest[..end.unwrap_or(rest.len())];
        if member.starts_with(name) {
            let (key, value) = pair(member);
            if key == name {
                return Some(value);
            }
        }
        rest = rest[end? + 1..].trim_ascii_start();
    }
}

/// Name and value of one member, without the white space around them.
fn pair(member: &[u8]) -> (&[u8], &[u8]) {
    match member.iter().position(|byte| *byte == b'=') {
        Some(at) => (member[..at].trim_ascii(), member[at + 1..].trim_ascii()),
        None => (&[], member),
    }
}

impl Mint {
    /// Appends `<epoch>.<id>`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut digits = [0u8; 10];
        out.extend_from_slice(decimal(self.epoch, &mut digits));
        out.push(b'.');
        out.extend_from_slice(&self.id);
    }
}

/// A number in decimal, without formatting machinery.
pub(super) fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_of_a_service_are_escaped_in_the_name() {
        assert_eq!(&*name("web-1"), "pointsman-web-1");
        assert_eq!(&*name("a.b_cé"), "pointsman-a_2eb_5fc_c3_a9");
    }

    #[test]
    fn a_minted_value_is_read_back_and_another_epoch_or_form_is_absent() {
        let minted = mint(7, Draw(42));
        let mut value = Vec::new();
        minted.write(&mut value);
        assert_eq!(value.len(), 28);
        assert_eq!(parse(&value, 7), Some(minted));
        assert_eq!(parse(&value, 8), None);
        assert_eq!(parse(&value[..27], 7), None);
        assert_eq!(parse(&[b"0", &value[..]].concat(), 7), None);
        assert_eq!(parse(&value.to_ascii_uppercase(), 7), None);
        assert_ne!(mint(7, Draw(43)), minted);
    }

    #[test]
    fn the_cookie_is_set_with_its_attributes() {
        let mint = Mint { epoch: 0, id: [b'a'; 26] };
        assert_eq!(
            set_cookie_value("pointsman-web", &mint, true),
            "pointsman-web=0.aaaaaaaaaaaaaaaaaaaaaaaaaa; Path=/; SameSite=Lax; HttpOnly; Max-Age=604800; Secure"
        );
        assert!(!set_cookie_value("pointsman-web", &mint, false).to_str().unwrap().contains("Secure"));
    }

    #[test]
    fn only_the_named_cookies_are_taken_out() {
        let strip = |text: &str| {
            strip(&HeaderValue::from_str(text).unwrap(), |name| name == b"p" || name == b"q")
                .map(|left| left.map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(strip("a=1; b=2"), None);
        assert_eq!(strip("a=1; p=x; b=2"), Some(Some("a=1; b=2".into())));
        assert_eq!(strip("p=x;q=y"), Some(None));
        assert_eq!(strip("pp=1;p=x; p=y"), Some(Some("pp=1".into())));
    }

    #[test]
    fn the_first_cookie_of_a_name_is_found_over_several_fields() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; b = 2 ;c"));
        headers.append("cookie", HeaderValue::from_static("a=3; d=x=y"));
        assert_eq!(find(&headers, "a"), Some(&b"1"[..]));
        assert_eq!(find(&headers, "b"), Some(&b"2"[..]));
        assert_eq!(find(&headers, "d"), Some(&b"x=y"[..]));
        assert_eq!(find(&headers, "e"), None);
    }
}
