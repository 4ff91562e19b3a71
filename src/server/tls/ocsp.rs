//! An OCSP response to be stapled (RFC 6960): whether it is about our certificate, says that it is good, and until when.
//! Its signature is the client's to check, who knows whom to believe.

use std::time::{Duration, SystemTime};

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};
use thiserror::Error;
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

/// How far the responder's clock may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// How long a response counts that does not say until when. Clients take it as long as they like; a day is usual.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);
/// `id-pkix-ocsp-basic`, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// When a response may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub from: SystemTime,
    /// Until then.
    pub until: SystemTime,
}

/// Why a response is not stapled: a client that looks at it would break off, one that does not learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It cannot be read.
    #[error("not an OCSP response in DER")]
    Unreadable,
    /// The responder refused to answer.
    #[error("the responder gave no answer but the error {0} (RFC 6960, 4.2.1)")]
    Refused(u8),
    /// No single response has the certificate's serial number and issuer.
    #[error("the OCSP response is for another certificate")]
    Another,
    /// The certificate is revoked.
    #[error("THE CERTIFICATE IS REVOKED, its OCSP response says; have another one issued")]
    Revoked,
    /// The responder does not know the certificate.
    #[error("the OCSP responder does not know the certificate")]
    Unknown,
}

impl Validity {
    /// Whether the response may be shown at this moment.
    #[must_use]
    pub fn covers(self, now: SystemTime) -> bool {
        self.from <= now && now < self.until
    }
}

/// When this response may be stapled to this certificate. `issuer`: whose key signed the certificate, where it is known.
///
/// # Errors
/// It may not, at any time.
pub fn validity(
    response: &[u8],
    certificate: &X509Certificate<'_>,
    issuer: Option<&X509Certificate<'_>>,
) -> Result<Validity, Unfit> {
    let list = Der::of(basic(response)?, SEQUENCE).and_then(single_responses);
    let mut responses = list.map(Der).ok_or(Unfit::Unreadable)?;
    while !responses.0.is_empty() {
        let mut single = responses.inside(SEQUENCE).ok_or(Unfit::Unreadable)?;
        let mut id = single.inside(SEQUENCE).ok_or(Unfit::Unreadable)?;
        if names(&mut id, certificate, issuer).ok_or(Unfit::Unreadable)? {
            return judged(single);
        }
    }
    Err(Unfit::Another)
}

/// `BasicOCSPResponse`, out of a successful `OCSPResponse`.
fn basic(response: &[u8]) -> Result<&[u8], Unfit> {
    let mut outer = Der(response);
    let mut whole = outer.inside(SEQUENCE).filter(|_| outer.0.is_empty()).ok_or(Unfit::Unreadable)?;
    match whole.take(Kind::Universal(Tag::Enumerated)) {
        Some([0]) => {}
        Some([status]) => return Err(Unfit::Refused(*status)),
        _ => return Err(Unfit::Unreadable),
    }
    let mut bytes = || -> Option<&[u8]> {
        let mut bytes = whole.inside(Kind::Context(0))?.inside(SEQUENCE)?;
        let kind = bytes.take(Kind::Universal(Tag::Oid))?;
        bytes.take(Kind::Universal(Tag::OctetString)).filter(|_| kind == BASIC)
    };
    bytes().ok_or(Unfit::Unreadable)
}

/// The list in `ResponseData`: behind a version that may be left out, the responder's name or key, and a time.
fn single_responses(mut basic: Der<'_>) -> Option<&[u8]> {
    let mut data = basic.inside(SEQUENCE)?;
    if data.is_next(Kind::Context(0)) {
        data.take(Kind::Context(0))?;
    }
    let by = if data.is_next(Kind::Context(1)) { Kind::Context(1) } else { Kind::Context(2) };
    data.take(by)?;
    data.time()?;
    data.take(SEQUENCE)
}

/// Whether a `CertID` is our certificate's. By a hash that is not known here the issuer is taken on trust.
fn names(id: &mut Der<'_>, certificate: &X509Certificate<'_>, issuer: Option<&X509Certificate<'_>>) -> Option<bool> {
    let algorithm = hash(id.inside(SEQUENCE)?.take(Kind::Universal(Tag::Oid))?);
    let (name, key) = (id.take(Kind::Universal(Tag::OctetString))?, id.take(Kind::Universal(Tag::OctetString))?);
    let serial = id.take(Kind::Universal(Tag::Integer))?;
    let is = |algorithm, hashed: &[u8], bytes: &[u8]| digest(algorithm, bytes).as_ref() == hashed;
    let is_issuer = algorithm.is_none_or(|algorithm| {
        let is_key = issuer.is_none_or(|issuer| is(algorithm, key, &issuer.public_key().subject_public_key.data));
        is_key && is(algorithm, name, certificate.issuer().as_raw())
    });
    Some(is_issuer && serial == certificate.raw_serial())
}

fn hash(oid: &[u8]) -> Option<&'static Algorithm> {
    match oid {
        [0x2b, 0x0e, 3, 2, 0x1a] => Some(&SHA1_FOR_LEGACY_USE_ONLY),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => Some(&SHA256),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => Some(&SHA384),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => Some(&SHA512),
        _ => None,
    }
}

/// What follows the `CertID`: good, revoked or unknown; from when; until when.
fn judged(mut single: Der<'_>) -> Result<Validity, Unfit> {
    if single.is_next(Kind::Context(1)) {
        return Err(Unfit::Revoked);
    }
    if single.is_next(Kind::Context(2)) {
        return Err(Unfit::Unknown);
    }
    let mut times = || -> Option<Validity> {
        single.take(Kind::Context(0))?;
        let this = single.time()?;
        let until = match single.is_next(Kind::Context(0)) {
            true => single.inside(Kind::Context(0))?.time()?,
            false => this.checked_add(UNLIMITED)?,
        };
        Some(Validity { from: this.checked_sub(AHEAD).unwrap_or(this), until })
    };
    times().ok_or(Unfit::Unreadable)
}

/// What an element is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Universal(Tag),
    Context(u32),
}

const SEQUENCE: Kind = Kind::Universal(Tag::Sequence);
const GENERALIZED_TIME: Kind = Kind::Universal(Tag::GeneralizedTime);

/// DER that has not been read yet.
#[derive(Clone, Copy)]
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// What is in the one element that these bytes are.
    fn of(bytes: &'d [u8], kind: Kind) -> Option<Self> {
        let mut der = Self(bytes);
        der.inside(kind).filter(|_| der.0.is_empty())
    }

    fn next(self) -> Option<(&'d [u8], Any<'d>)> {
        Any::from_der(self.0).ok()
    }

    fn is_next(self, kind: Kind) -> bool {
        self.next().is_some_and(|(_, element)| is(&element, kind))
    }

    /// What is in the next element, if it is of this kind.
    fn take(&mut self, kind: Kind) -> Option<&'d [u8]> {
        let (rest, element) = self.next().filter(|(_, element)| is(element, kind))?;
        self.0 = rest;
        Some(element.data)
    }

    /// The same, to be read on.
    fn inside(&mut self, kind: Kind) -> Option<Self> {
        self.take(kind).map(Self)
    }

    fn time(&mut self) -> Option<SystemTime> {
        let (rest, time) = ASN1Time::from_der(self.0).ok().filter(|_| self.is_next(GENERALIZED_TIME))?;
        self.0 = rest;
        // Nothing of before 1970 is in force.
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
    }
}

fn is(element: &Any<'_>, kind: Kind) -> bool {
    let (class, tag) = (element.class(), element.tag());
    match kind {
        Kind::Universal(wanted) => class == Class::Universal && tag == wanted,
        Kind::Context(wanted) => class == Class::ContextSpecific && tag == Tag(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../../../tests/support/ocsp/certificate.der");
    const ISSUER: &[u8] = include_bytes!("../../../tests/support/ocsp/issuer.der");
    const GOOD: &[u8] = include_bytes!("../../../tests/support/ocsp/good.der");

    fn read(der: &[u8]) -> X509Certificate<'_> {
        X509Certificate::from_der(der).unwrap().1
    }

    fn of(response: &[u8]) -> Result<Validity, Unfit> {
        validity(response, &read(CERTIFICATE), Some(&read(ISSUER)))
    }

    /// 2026-11-23 09:23:35 UTC, when `openssl ocsp` made the good one, for a week.
    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_425_815 + seconds)
    }

    #[test]
    fn a_good_response_counts_from_its_time_to_its_next() {
        let good = of(GOOD).unwrap();
        assert_eq!(good, Validity { from: at(0) - AHEAD, until: at(7 * 86_400) });
        for (now, covered) in
            [(at(0) - AHEAD, true), (at(0) - AHEAD * 2, false), (at(604_799), true), (at(604_800), false)]
        {
            assert_eq!(good.covers(now), covered);
        }
        assert!(of(include_bytes!("../../../tests/support/ocsp/sha256.der")).is_ok(), "by SHA-256, with a certificate");
        assert_eq!(validity(GOOD, &read(CERTIFICATE), None), Ok(good), "without the issuer's certificate");
    }

    #[test]
    fn a_response_that_says_anything_else_is_unfit() {
        let revoked = include_bytes!("../../../tests/support/ocsp/revoked.der");
        let unknown = include_bytes!("../../../tests/support/ocsp/unknown.der");
        let refused = include_bytes!("../../../tests/support/ocsp/refused.der");
        assert_eq!(of(revoked), Err(Unfit::Revoked));
        assert_eq!(of(unknown), Err(Unfit::Unknown));
        assert_eq!(of(refused), Err(Unfit::Refused(2)));
        assert_eq!(validity(GOOD, &read(ISSUER), None), Err(Unfit::Another), "another serial number");
        assert_eq!(
            validity(GOOD, &read(CERTIFICATE), Some(&read(CERTIFICATE))),
            Err(Unfit::Another),
            "another issuer's key"
        );
        for wrong in [&b""[..], b"unauthorized", &[0x30, 5, 0x0a, 1, 0, 0xa0, 0], &[GOOD, b"\0"].concat(), CERTIFICATE]
        {
            assert_eq!(of(wrong), Err(Unfit::Unreadable), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_response_that_is_cut_or_changed_never_panics() {
        for cut in 0..GOOD.len() {
            assert!(of(&GOOD[..cut]).is_err(), "{cut}");
        }
        for at in 0..GOOD.len() {
            for bit in 0..8 {
                let mut changed = GOOD.to_vec();
                changed[at] ^= 1 << bit;
                let _ = of(&changed);
            }
        }
    }
}
