//! The certificate a fresh installation starts with.
//!
//! EMQX ships a certificate and its key with every copy, the same for all the world. Ours is made
//! at first start, so that no two installations share a key: an authority that signs one server
//! certificate and is then forgotten. Existing files are never touched. Several nodes may start at
//! once from one installation: one of them makes the files, whole before they have their names, and
//! the others wait for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// The authority's certificate, for clients that verify.
const CACERT: &str = "cacert.pem";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Where the default certificate may be.
pub(crate) struct DefaultCertificate<'a> {
    /// `etc/certs`, where the configuration looks for it.
    pub(crate) etc: &'a Path,
    /// `data/certs`, used when `etc` is read-only.
    pub(crate) data: &'a Path,
    /// Names and addresses of this machine that clients may use.
    pub(crate) names: &'a [String],
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The files could not be written.
    #[error("cannot write the default certificate to `{}`: {source}", .dir.display())]
    Write {
        /// The directory tried last.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The library could not make it.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl DefaultCertificate<'_> {
    /// The file to use where the configuration says `path`: `path` itself, except for a default
    /// file that is not in `etc/certs` and is in `data/certs`.
    pub(crate) fn locate(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(self.etc) {
            Ok(name) if !path.exists() && self.data.join(name).exists() => self.data.join(name),
            _ => path.to_owned(),
        }
    }

    /// Makes the three files where the configuration's `cert` and `key` are the default ones and
    /// neither exists; returns the directory they are in then.
    pub(crate) fn make(&self, cert: &Path, key: &Path) -> Result<Option<&Path>, CertificateError> {
        let is_default = cert == self.etc.join(CERT) && key == self.etc.join(KEY);
        // The certificate comes last: with it everything is there.
        if !is_default || self.exists(CERT) {
            return Ok(None);
        }
        let files = generate(self.names)?;
        let made = self.make_in(self.etc, &files);
        let made = made.or_else(|_| self.make_in(self.data, &files));
        made.map_err(|source| CertificateError::Write {
            dir: self.data.to_owned(),
            source,
        })
    }

    /// `None`: somebody else has made them, or half of a pair is the operator's.
    fn make_in<'b>(&self, dir: &'b Path, files: &Pem) -> io::Result<Option<&'b Path>> {
        fs::create_dir_all(dir)?;
        let turn = File::open(dir)?;
        // Where files cannot be locked (some network file systems), nodes that start at the same
        // moment are out of luck, as they would be without the lock.
        let _ = turn.lock();
        if self.exists(CERT) || self.exists(KEY) {
            return Ok(None);
        }
        write_all(dir, files)?;
        Ok(Some(dir))
    }

    fn exists(&self, name: &str) -> bool {
        self.locate(&self.etc.join(name)).exists()
    }
}

struct Pem {
    cacert: String,
    cert: String,
    key: String,
}

fn generate(names: &[String]) -> Result<Pem, rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    dress(&mut ca, "Dunlin self-signed authority");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(names.to_vec())?;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    dress(&mut server, "Dunlin");
    let key = KeyPair::generate()?;
    let cert = server.signed_by(&key, &ca)?;
    Ok(Pem {
        cacert: ca.pem(),
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

/// Name and life: from a date before any first start, so that a machine without a clock of its own
/// can use it, for as long as such a machine may run.
fn dress(params: &mut CertificateParams, name: &str) {
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
}

fn write_all(dir: &Path, pem: &Pem) -> io::Result<()> {
    let cacert = dir.join(CACERT);
    if cacert.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // The key first and the certificate last: a crash between leaves no certificate without key.
    let key = write_unnamed(dir.join(KEY), &pem.key, 0o600)?;
    let cacert = write_unnamed(cacert, &pem.cacert, 0o644)?;
    let cert = write_unnamed(dir.join(CERT), &pem.cert, 0o644)?;
    [key, cacert, cert]
        .iter()
        .try_for_each(|Unnamed { at, path }| fs::rename(at, path))
}

/// A whole file that does not have its name yet.
struct Unnamed {
    at: PathBuf,
    path: PathBuf,
}

fn write_unnamed(path: PathBuf, text: &str, mode: u32) -> io::Result<Unnamed> {
    let at = path.with_extension("new");
    // One that was left by a crash.
    let _ = fs::remove_file(&at);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&at)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(Unnamed { at, path })
}

/// The names a default certificate is made for: this machine's usual ones and those given.
pub(crate) fn names_of_machine(node_host: &str) -> Vec<String> {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .into_iter()
        .collect();
    for name in [hostname, node_host.to_owned()] {
        let usable = name.parse::<IpAddr>().is_ok()
            || (!name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
        if usable && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
