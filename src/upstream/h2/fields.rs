//! Fields on their way into HTTP/2, whose library remembers those that may come again.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// Gives the values one allocation of their own. What HTTP/1 reads are slices of its buffer, and the library's table of
/// sent fields (RFC 7541, 2.3.2) holds up to 4 KiB of them for as long as the connection lives: a field that is new in
/// each answer held the buffers of the last ninety, 1.3 MB a connection where answers have 60 kB.
pub fn detach(fields: &mut HeaderMap) {
    let mut own = BytesMut::with_capacity(fields.values().map(HeaderValue::len).sum());
    fields.values().for_each(|value| own.extend_from_slice(value.as_bytes()));
    let own = own.freeze();
    let mut at = 0;
    for value in fields.values_mut() {
        let end = at + value.len();
        // A copy of a value is one.
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(own.slice(at..end)) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_stay_what_they_are_and_let_go_of_the_buffer_that_they_were_read_into() {
        let buffer = Bytes::from(b"GET / HTTP/1.1\r\na: one\r\nb: \xfftwo\r\nb:\r\n".to_vec());
        let (mut fields, read) = (HeaderMap::new(), |at| HeaderValue::from_maybe_shared(buffer.slice(at)).unwrap());
        fields.append("a", read(19..22));
        fields.append("b", read(27..31));
        fields.append("b", read(31..31));
        fields.insert("c", HeaderValue::from_static("three"));
        fields.get_mut("a").unwrap().set_sensitive(true);
        assert!(!buffer.is_unique());
        let before: Vec<_> = fields.iter().map(|(name, value)| (name.clone(), value.as_bytes().to_vec())).collect();
        detach(&mut fields);
        let after: Vec<_> = fields.iter().map(|(name, value)| (name.clone(), value.as_bytes().to_vec())).collect();
        assert_eq!(before, after);
        assert!(fields["a"].is_sensitive() && !fields["c"].is_sensitive());
        assert!(buffer.is_unique(), "the buffer is nobody else's");
        detach(&mut HeaderMap::new());
    }
}
