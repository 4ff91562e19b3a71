//! OCSP responses as a responder would write them, but for the signature, which nobody here checks.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// What a response says of the certificate: the tag of its status.
pub const GOOD: u8 = 0x80;
pub const REVOKED: u8 = 0xa1;

/// A response for the certificate of a file (PEM): its status, from when, until when (seconds from now).
pub fn response(certificate: &Path, status: u8, from: i64, until: Option<i64>) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
    let name = ring::digest::digest(&ring::digest::SHA256, certificate.issuer().as_raw());
    let sha256 = der(0x30, &[&[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]]);
    let serial = der(2, &[certificate.raw_serial()]);
    // The chain is the certificate alone, so nobody knows the issuer's key.
    let id = der(0x30, &[&sha256, &der(4, &[name.as_ref()]), &der(4, &[&[7; 32]]), &serial]);
    let status = if status == REVOKED { der(REVOKED, &[&time(from)]) } else { der(status, &[]) };
    let until = until.map_or_else(Vec::new, |until| der(0xa0, &[&time(until)]));
    let list = der(0x30, &[&der(0x30, &[&id, &status, &time(from), &until])]);
    let data = der(0x30, &[&der(0xa2, &[&der(4, &[&[7; 20]])]), &time(from), &list]);
    let ed25519 = der(0x30, &[&[6, 3, 0x2b, 0x65, 0x70]]);
    let basic = der(0x30, &[&data, &ed25519, &der(3, &[&[0; 65]])]);
    let bytes = der(0x30, &[&[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1], &der(4, &[&basic])]);
    der(0x30, &[&[0x0a, 1, 0], &der(0xa0, &[&bytes])])
}

fn time(from_now: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let at = ASN1Time::from_timestamp(now as i64 + from_now).unwrap().to_datetime();
    let (month, day, hour) = (u8::from(at.month()), at.day(), at.hour());
    let text = format!("{:04}{month:02}{day:02}{hour:02}{:02}{:02}Z", at.year(), at.minute(), at.second());
    der(0x18, &[text.as_bytes()])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let head = match body.len() {
        length @ 0..0x80 => vec![tag, length as u8],
        length => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, body].concat()
}
