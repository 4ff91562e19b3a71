//! Request labels on their way to the instance: a header of their own, and a member of W3C Baggage
//! (<https://www.w3.org/TR/baggage/>).

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::reader::Reader;
use super::router::RouterFile;
use crate::engine::label::Text;

/// The header that carries baggage.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// A label that is passed on.
#[derive(Clone, Debug)]
pub struct Propagated {
    /// Its place in the labels of the file's fields.
    pub(super) label: u32,
    /// The header that carries it.
    pub header: Option<HeaderName>,
    /// The member of the baggage that carries it.
    pub baggage: Option<Text>,
}

/// The labels of one request that are passed on, ready to be written. A label without a value is not among them.
pub type Carried = SmallVec<[Carry; 1]>;

/// One label of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carry {
    /// Its place in the file's `propagate`.
    pub at: usize,
    /// For the header; `None`: the value cannot stand in one, and then nobody else's may pass for it.
    pub plain: Option<HeaderValue>,
    /// For the baggage, percent-encoded.
    pub encoded: Option<HeaderValue>,
}

/// Reads the labels that a file passes on.
#[must_use]
pub fn carried(file: &RouterFile, reader: &mut Reader<'_, '_>) -> Carried {
    let mut found = Carried::new();
    for (at, propagated) in file.propagate.iter().enumerate() {
        let Some(value) = reader.label(propagated.label) else { continue };
        let plain = HeaderValue::from_bytes(value).ok();
        let encoded = propagated.baggage.as_ref().and_then(|_| encoded(value));
        found.push(Carry { at, plain, encoded });
    }
    found
}

/// Writes the labels into a head: in place of a header of that name, and of a baggage member of that name; the other
/// members stay.
pub fn carry(file: &RouterFile, carried: &Carried, headers: &mut HeaderMap) {
    for one in carried {
        let propagated = &file.propagate[one.at];
        if let Some(name) = &propagated.header {
            match &one.plain {
                Some(value) => headers.insert(name, value.clone()),
                None => headers.remove(name),
            };
        }
        if let Some(member) = &propagated.baggage {
            remove_member(headers, member);
            if let Some(value) = &one.encoded {
                add_member(headers, member, value);
            }
        }
    }
}

/// Takes a member out of the baggage. The others stay as they are, with their properties.
pub fn remove_member(headers: &mut HeaderMap, member: &str) {
    let named = |part: &[u8]| key(part) == member.as_bytes();
    let has = |field: &HeaderValue| field.as_bytes().split(|byte| *byte == b',').any(named);
    if !headers.get_all(BAGGAGE).iter().any(has) {
        return;
    }
    let left: Vec<HeaderValue> = headers
        .get_all(BAGGAGE)
        .iter()
        .filter_map(|field| {
            let kept: Vec<&[u8]> = field
                .as_bytes()
                .split(|byte| *byte == b',')
                .filter(|part| !named(part))
                .map(<[u8]>::trim_ascii)
                .filter(|part| !part.is_empty())
                .collect();
            HeaderValue::from_maybe_shared(bytes::Bytes::from(kept.join(&b","[..]))).ok()
        })
        .filter(|field| !field.is_empty())
        .collect();
    headers.remove(BAGGAGE);
    left.into_iter().for_each(|field| {
        headers.append(BAGGAGE, field);
    });
}

/// Adds a member at the end of the first field, or as a field of its own.
fn add_member(headers: &mut HeaderMap, member: &str, value: &HeaderValue) {
    let first = headers.get(BAGGAGE).map_or(&b""[..], HeaderValue::as_bytes);
    let mut whole = Vec::with_capacity(first.len() + member.len() + value.len() + 2);
    whole.extend_from_slice(first);
    if !whole.is_empty() {
        whole.push(b',');
    }
    whole.extend_from_slice(member.as_bytes());
    whole.push(b'=');
    whole.extend_from_slice(value.as_bytes());
    let Ok(whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) else { return };
    match headers.get_mut(BAGGAGE) {
        Some(first) => *first = whole,
        None => {
            headers.insert(BAGGAGE, whole);
        }
    }
}

/// The key of a list member: up to `=`, or to its properties where it has no value.
fn key(part: &[u8]) -> &[u8] {
    part.split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default().trim_ascii()
}

/// Percent-encodes what is no `baggage-octet`, and the percent sign.
fn encoded(value: &[u8]) -> Option<HeaderValue> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(value.len());
    for &byte in value {
        let octet = matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e) && byte != b'%';
        if octet {
            out.push(byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(fields: &[&'static str], member: &str, value: Option<&[u8]>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|field| {
            headers.append(BAGGAGE, HeaderValue::from_static(field));
        });
        remove_member(&mut headers, member);
        if let Some(value) = value {
            add_member(&mut headers, member, &encoded(value).unwrap());
        }
        headers.get_all(BAGGAGE).iter().map(|field| field.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_member_is_replaced_and_the_others_stay_with_their_properties() {
        assert_eq!(after(&[], "lane", Some(b"x")), ["lane=x"]);
        assert_eq!(after(&["user=7;p=1 , lane=old;q, a=b"], "lane", Some(b"x")), ["user=7;p=1,a=b,lane=x"]);
        assert_eq!(after(&["lane=a,lane = b", "lanes=c,lane=d"], "lane", Some(b"x")), ["lanes=c,lane=x"]);
        assert_eq!(after(&["lane=a"], "lane", None), Vec::<String>::new());
        assert_eq!(after(&["user=lane, x"], "lane", None), ["user=lane, x"], "nothing to do, nothing changed");
    }

    #[test]
    fn values_are_encoded_as_baggage_wants_them() {
        assert_eq!(encoded("a b,c;d\"e\\f%é~!".as_bytes()).unwrap(), "a%20b%2Cc%3Bd%22e%5Cf%25%C3%A9~!");
    }
}
