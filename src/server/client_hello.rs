//! A TLS client's greeting (ClientHello), read as far as a router needs it: the name that it asks for (RFC 6066). Nothing is
//! answered, so no version, cipher or signature matters here; those are for whoever the greeting is passed on to.
//!
//! Strict where two readers could see two names: what RFC 8446 (4.1.2, 4.2, 5.1) does not allow is refused.

use std::sync::Arc;

use rustls_pki_types::ServerName;

/// The most that a greeting may take with its records' heads, bytes. Those of browsers take 0.5 to 2 KiB.
pub const MOST: usize = 64 * 1024;

/// A record's type, version and length.
const RECORD_HEAD: usize = 5;
/// The most that a record holds in the clear.
const RECORD_MOST: usize = 16 * 1024;
/// A handshake message's type and length.
const MESSAGE_HEAD: usize = 4;

/// The version's first byte, from SSL 3 to TLS 1.3.
const MAJOR: u8 = 3;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many more bytes belong to the greeting, at least.
    More(usize),
    /// It is whole, and asks for this name: in lower case, without a dot at its end. `None`: for nobody, or for an address.
    Asks(Option<Arc<str>>),
}

/// Not a greeting, or not an allowed one; SSL 2's, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Looks at what has been read from the beginning. A reader that comes back when there is as much as was asked for comes back
/// a few dozen times at most, however the bytes are cut into records. Never asks for a byte behind the greeting, nor for more
/// than [`MOST`].
///
/// # Errors
/// The bytes are no beginning of a greeting, or those of one that is too long.
pub fn step(read: &[u8]) -> Result<Step, Malformed> {
    let Joined { message, open, behind } = joined(read)?;
    let whole = length(&message);
    let wanted = whole.unwrap_or(MESSAGE_HEAD);
    if let (Some(whole), Open::Body(left)) = (whole, open) {
        // A greeting ends where its record ends (RFC 8446, 5.1).
        ensure(message.len() + left <= whole)?;
    }
    ensure(message.len() <= wanted)?;
    if whole == Some(message.len()) {
        ensure(read.len() - behind <= MOST)?;
        return asked(Reader(&message[MESSAGE_HEAD..])).map(Step::Asks);
    }
    let missing = wanted - message.len();
    let more = match open {
        Open::Head(left) => left + missing,
        Open::Body(left) if left >= missing => missing,
        Open::Body(_) => missing + RECORD_HEAD,
    };
    ensure(read.len() + more <= MOST)?;
    Ok(Step::More(more))
}

/// What a greeting's records hold.
struct Joined {
    /// The message as far as it has come, or a little more.
    message: Vec<u8>,
    open: Open,
    /// So many bytes follow.
    behind: usize,
}

/// What comes next of a record.
#[derive(Clone, Copy)]
enum Open {
    /// So many bytes of its head.
    Head(usize),
    /// So many bytes of what it holds.
    Body(usize),
}

/// Joins the records up to the one in which the message ends. What is behind it may be of any kind.
fn joined(read: &[u8]) -> Result<Joined, Malformed> {
    let (mut rest, mut message) = (read, Vec::new());
    while length(&message).is_none_or(|whole| message.len() < whole) {
        let head = &rest[..rest.len().min(RECORD_HEAD)];
        ensure(head.iter().zip([HANDSHAKE, MAJOR]).all(|(byte, wanted)| *byte == wanted))?;
        let &[_, _, _, high, low] = head else {
            return Ok(Joined { message, open: Open::Head(RECORD_HEAD - head.len()), behind: 0 });
        };
        let holds = usize::from(u16::from_be_bytes([high, low]));
        ensure((1..=RECORD_MOST).contains(&holds))?;
        let behind = &rest[RECORD_HEAD..];
        let (body, behind) = behind.split_at(holds.min(behind.len()));
        message.extend_from_slice(body);
        ensure(message.first() == Some(&CLIENT_HELLO) || message.is_empty())?;
        if body.len() < holds {
            return Ok(Joined { message, open: Open::Body(holds - body.len()), behind: 0 });
        }
        rest = behind;
    }
    Ok(Joined { message, open: Open::Head(RECORD_HEAD), behind: rest.len() })
}

/// How long the message is with its head, once that is known.
fn length(message: &[u8]) -> Option<usize> {
    let &[_, high, middle, low] = message.first_chunk::<MESSAGE_HEAD>()?;
    Some(MESSAGE_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize)
}

/// The name, out of what follows the message's head.
fn asked(mut hello: Reader<'_>) -> Result<Option<Arc<str>>, Malformed> {
    let [major, _] = hello.array()?;
    let _random: [u8; 32] = hello.array()?;
    let session = hello.short_list()?;
    let (ciphers, compressions) = (hello.list()?, hello.short_list()?);
    ensure(major == MAJOR && session.len() <= 32)?;
    ensure(!ciphers.is_empty() && ciphers.len().is_multiple_of(2) && !compressions.is_empty())?;
    if hello.0.is_empty() {
        // Before extensions there were no names.
        return Ok(None);
    }
    let mut extensions = Reader(hello.list()?);
    ensure(hello.0.is_empty())?;
    let (mut kinds, mut name) = (Vec::new(), None);
    while !extensions.0.is_empty() {
        let kind = u16::from_be_bytes(extensions.array()?);
        let extension = extensions.list()?;
        kinds.push(kind);
        if kind == SERVER_NAME {
            name = host_name(Reader(extension))?;
        }
    }
    // Of two of a kind one reader takes the first and another the last.
    kinds.sort_unstable();
    ensure(kinds.windows(2).all(|two| two[0] != two[1]))?;
    Ok(name)
}

/// The one name of the list. Kinds other than a host's cannot be skipped: nobody has defined how long they are.
fn host_name(mut extension: Reader<'_>) -> Result<Option<Arc<str>>, Malformed> {
    let mut names = Reader(extension.list()?);
    ensure(extension.0.is_empty() && names.array()? == [HOST_NAME])?;
    let name = names.list()?;
    ensure(names.0.is_empty())?;
    match ServerName::try_from(name) {
        Ok(ServerName::DnsName(name)) => {
            // Rules have no dot at the end; a name with one must not pass by them.
            let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
            ensure(!name.is_empty())?;
            Ok(Some(name.into()))
        }
        // Not allowed, and sent all the same by clients that were given an address.
        Ok(ServerName::IpAddress(_)) => Ok(None),
        _ => Err(Malformed),
    }
}

fn ensure(holds: bool) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed) }
}

/// What has not been read yet.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Under a length of one byte.
    fn short_list(&mut self) -> Result<&'b [u8], Malformed> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }

    /// Under a length of two bytes.
    fn list(&mut self) -> Result<&'b [u8], Malformed> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list under a length of two bytes.
    fn list(items: &[u8]) -> Vec<u8> {
        [&u16::try_from(items.len()).unwrap().to_be_bytes()[..], items].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &list(body)].concat()
    }

    fn names(name: &str) -> Vec<u8> {
        extension(SERVER_NAME, &list(&[&[HOST_NAME], &list(name.as_bytes())[..]].concat()))
    }

    /// What follows the message's head, as TLS 1.0 has it.
    fn body(extensions: Option<&[u8]>) -> Vec<u8> {
        let ciphers = list(&[0xc0, 0x13, 0, 0x2f]);
        let extensions = extensions.map(list).unwrap_or_default();
        [&[3, 1][..], &[7; 32], &[0], &ciphers, &[1, 0], &extensions].concat()
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], body].concat()
    }

    /// The message in records of so many bytes.
    fn records(message: &[u8], each: usize) -> Vec<u8> {
        message.chunks(each).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &list(part)].concat()).collect()
    }

    fn greeting(extensions: &[u8]) -> Vec<u8> {
        records(&message(&body(Some(extensions))), RECORD_MOST)
    }

    fn asks(name: &str) -> Result<Step, Malformed> {
        Ok(Step::Asks(Some(name.into())))
    }

    /// Feeds a greeting as a reader does: how often it looked, how much it took, what it heard.
    fn read(bytes: &[u8]) -> (usize, usize, Result<Step, Malformed>) {
        let (mut looks, mut taken) = (0, 0);
        loop {
            looks += 1;
            match step(&bytes[..taken]) {
                Ok(Step::More(more)) if taken + more <= bytes.len() => taken += more,
                Ok(Step::More(_)) if taken < bytes.len() => taken = bytes.len(),
                said => return (looks, taken, said),
            }
        }
    }

    #[test]
    fn a_greeting_of_any_version_asks_for_a_name_or_for_nobody() {
        let old = [names("A.Test"), extension(10, &[0, 2, 0, 23]), extension(0xff01, &[0])].concat();
        for (bytes, said) in [
            (greeting(&old), asks("a.test")),
            (greeting(&names("a_b.xn--p1ai.test.")), asks("a_b.xn--p1ai.test")),
            (greeting(&names("192.0.2.1")), Ok(Step::Asks(None))),
            (greeting(&names("2001:db8::1")), Ok(Step::Asks(None))),
            (greeting(&[]), Ok(Step::Asks(None))),
            (greeting(&extension(10, &[])), Ok(Step::Asks(None))),
            (records(&message(&body(None)), RECORD_MOST), Ok(Step::Asks(None))),
        ] {
            assert_eq!(read(&bytes).2, said, "{}", bytes.escape_ascii());
            // Whatever comes next is not ours to judge.
            assert_eq!(step(&[&bytes[..], b"\x17\x03\x03anything"].concat()), said);
        }
    }

    #[test]
    fn what_two_readers_could_take_for_two_names_is_refused() {
        let entry = |kind: u8, name: &str| [&[kind], &list(name.as_bytes())[..]].concat();
        let two_names = list(&[entry(0, "a.test"), entry(0, "b.test")].concat());
        let behind_names = [list(&entry(0, "a.test")), vec![0]].concat();
        for (what, extensions) in [
            ("two extensions of names", [names("a.test"), names("a.test")].concat()),
            ("two of another kind", [extension(5, &[]), names("a.test"), extension(5, &[])].concat()),
            ("two names", extension(SERVER_NAME, &two_names)),
            ("bytes behind the names", extension(SERVER_NAME, &behind_names)),
            ("no names", extension(SERVER_NAME, &list(&[]))),
            ("an empty extension", extension(SERVER_NAME, &[])),
            ("an empty name", names("")),
            ("a name of another kind", extension(SERVER_NAME, &list(&entry(1, "a.test")))),
            ("a space", names("a test")),
            ("a NUL", names("a.test\0.b.test")),
            ("no ASCII", names("ä.test")),
            ("only a dot", names(".")),
            ("too long", names(&"a".repeat(64))),
            ("an extension that ends early", [names("a.test"), vec![0, 5, 0, 9]].concat()),
            ("half an extension", [names("a.test"), vec![0]].concat()),
        ] {
            assert_eq!(read(&greeting(&extensions)).2, Err(Malformed), "{what}");
        }
        let whole = body(Some(&names("a.test")));
        let second = records(&message(&whole), RECORD_MOST);
        for (what, bytes) in [
            ("bytes behind the extensions", records(&message(&[&whole[..], &[0]].concat()), RECORD_MOST)),
            ("bytes behind the message", records(&[&message(&whole)[..], &[0]].concat(), RECORD_MOST)),
            ("another message in the record", records(&message(&whole).repeat(2), RECORD_MOST)),
            ("SSL 2", vec![0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16]),
            ("HTTP", b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n".to_vec()),
            ("an alert", vec![21, 3, 1, 0, 2, 1, 0]),
            ("no major version 3", [&[HANDSHAKE, 2], &second[2..]].concat()),
            ("a record of nothing", [&[HANDSHAKE, 3, 1, 0, 0], &second[..]].concat()),
            ("a record that is too long", vec![HANDSHAKE, 3, 1, 0x40, 1]),
            ("another message", vec![HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]),
            ("a message that is too long", vec![HANDSHAKE, 3, 1, 0x40, 0, CLIENT_HELLO, 1, 0, 0]),
            ("an empty message", records(&message(&[]), RECORD_MOST)),
            (
                "a session id that is too long",
                records(
                    &message(&[&[3, 3][..], &[7; 32], &[33], &[0; 33], &[0, 2, 0, 47, 1, 0]].concat()),
                    RECORD_MOST,
                ),
            ),
            ("no cipher", records(&message(&[&[3, 3][..], &[7; 32], &[0, 0, 0, 1, 0]].concat()), RECORD_MOST)),
        ] {
            assert_eq!(read(&bytes).2, Err(Malformed), "{what}");
        }
    }

    #[test]
    fn what_is_missing_is_asked_for_and_a_look_is_rare_however_it_is_cut() {
        let long = [names("a.test"), extension(21, &[0; 9_000])].concat();
        let message = message(&body(Some(&long)));
        for each in [1, 2, 3, 5, 100, RECORD_MOST] {
            let bytes = records(&message, each);
            let (looks, taken, said) = read(&bytes);
            assert_eq!((taken, said), (bytes.len(), asks("a.test")), "in pieces of {each}");
            assert!(looks < 80, "{looks} looks at pieces of {each}");
        }
        let endless = records(&self::message(&[0; 40_000]), 1);
        assert_eq!(read(&endless).2, Err(Malformed), "its records' heads count, too");
        assert_eq!(step(&endless), Err(Malformed), "at once or bit by bit");
    }

    proptest::proptest! {
        #[test]
        fn pieces_change_nothing_and_no_byte_behind_is_asked_for(
            name in "[a-zA-Z0-9]{1,20}(\\.[a-z0-9-]{1,8}[a-z])?", padding in 0usize..600, each in 1usize..700,
        ) {
            let extensions = [extension(21, &vec![0; padding]), names(&name)].concat();
            let bytes = records(&message(&body(Some(&extensions))), each);
            let expected = match name.parse::<std::net::IpAddr>() {
                Err(_) if ServerName::try_from(&*name).is_ok() => asks(&name.to_ascii_lowercase()),
                Err(_) => Err(Malformed),
                Ok(_) => Ok(Step::Asks(None)),
            };
            proptest::prop_assert_eq!(&step(&bytes), &expected);
            for cut in 0..bytes.len() {
                let said = step(&bytes[..cut]);
                let fits = matches!(said, Ok(Step::More(more)) if more > 0 && cut + more <= bytes.len());
                proptest::prop_assert!(fits, "{cut} of {}: {said:?}", bytes.len());
            }
        }

        #[test]
        fn a_greeting_with_anything_changed_is_read_or_refused(at: usize, byte: u8, each in 1usize..99) {
            let mut bytes = records(&message(&body(Some(&[names("a.test"), extension(10, &[0, 2, 0, 23])].concat()))), each);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = step(&bytes);
        }
    }
}
