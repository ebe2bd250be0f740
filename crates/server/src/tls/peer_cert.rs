//! Who a client certificate names, for `peer_cert_as_username` and the like.
//!
//! The certificate was verified by rustls before it gets here; this only reads the subject. A
//! subject it cannot read is an empty one, never a refused client.

use bytes::Bytes;
use dunlin_broker::effects::PeerCert;
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, Tag};

/// Attribute types that subjects have, with their usual short names.
const ATTRIBUTES: &[(&[u64], &str)] = &[
    (&[2, 5, 4, 3], "CN"),
    (&[2, 5, 4, 4], "SN"),
    (&[2, 5, 4, 5], "serialNumber"),
    (&[2, 5, 4, 6], "C"),
    (&[2, 5, 4, 7], "L"),
    (&[2, 5, 4, 8], "ST"),
    (&[2, 5, 4, 10], "O"),
    (&[2, 5, 4, 11], "OU"),
    (&[2, 5, 4, 12], "title"),
    (&[2, 5, 4, 42], "GN"),
    (&[1, 2, 840, 113_549, 1, 9, 1], "emailAddress"),
    (&[0, 9, 2342, 19_200_300, 100, 1, 25], "DC"),
    (&[0, 9, 2342, 19_200_300, 100, 1, 1], "UID"),
];

/// What a certificate in DER says about its holder.
pub(crate) fn peer_cert(der: &[u8]) -> PeerCert {
    let subject = yasna::parse_der(der, subject_of_certificate).unwrap_or_default();
    let cn = subject.iter().find(|(name, _)| name == "CN");
    let cn = cn.map(|(_, value)| value.clone()).unwrap_or_default();
    let parts: Vec<String> = subject
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    PeerCert {
        cn,
        dn: parts.join(","),
        der: Bytes::copy_from_slice(der),
    }
}

type Subject = Vec<(String, String)>;

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signature }`.
fn subject_of_certificate(reader: BERReader<'_, '_>) -> ASN1Result<Subject> {
    reader.read_sequence(|reader| {
        let subject = reader.next().read_sequence(|reader| {
            // version [0], serial, signature, issuer and validity come before the subject.
            reader.read_optional(|reader| reader.read_tagged(Tag::context(0), any))?;
            for _ in 0..4 {
                reader.next().read_der()?;
            }
            let subject = read_name(reader.next());
            while reader.read_optional(any)?.is_some() {}
            subject
        });
        reader.next().read_der()?;
        reader.next().read_der()?;
        subject
    })
}

/// Reads over a value of any type.
fn any(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    reader.read_der()
}

/// `Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }`.
fn read_name(reader: BERReader<'_, '_>) -> ASN1Result<Subject> {
    let mut subject = Subject::new();
    reader.read_sequence_of(|reader| {
        reader.read_set_of(|reader| {
            reader.read_sequence(|reader| {
                let kind = reader.next().read_oid()?;
                let value = read_text(reader.next())?;
                subject.push((attribute_name(&kind), value));
                Ok(())
            })
        })
    })?;
    Ok(subject)
}

/// The text of any of the string types, by its bytes: all in use are UTF-8, ASCII or close to it.
fn read_text(reader: BERReader<'_, '_>) -> ASN1Result<String> {
    let der = reader.read_der()?;
    let text = match der.as_slice() {
        [_, length, text @ ..] if usize::from(*length) == text.len() => text,
        [_, 0x81, _, text @ ..] | [_, 0x82, _, _, text @ ..] => text,
        _ => return Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
    };
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn attribute_name(kind: &ObjectIdentifier) -> String {
    let known = ATTRIBUTES
        .iter()
        .find(|(oid, _)| kind.components().as_slice() == *oid);
    known.map_or_else(|| kind.to_string(), |(_, name)| (*name).to_owned())
}
