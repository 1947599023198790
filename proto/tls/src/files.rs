//! Keys and certificates on disk.
//!
//! A certificate and its key lie in one file, which is replaced as a whole: after a crash there is the old pair or the
//! new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{Authority, Signed, TlsError};

/// The authorities that are trusted; on masters, the first one signs.
pub const AUTHORITY: &str = "ca.pem";
/// Its key; on masters only.
pub const AUTHORITY_KEY: &str = "ca-key.pem";
/// A certificate and its key.
pub const IDENTITY: &str = "identity.pem";
/// No file here is larger.
const MOST_BYTES: u64 = 256 * 1024;

const JOIN: &str = "join the cluster with `berth join --token TOKEN`";

/// The clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::File { verb, path, source }
}

fn content(path: &Path, what: impl Into<String>, hint: &'static str) -> TlsError {
    let (path, what) = (path.to_owned(), what.into());
    TlsError::Content { path, what, hint }
}

fn read(path: &Path) -> Result<String, TlsError> {
    let bytes = fs::metadata(path).map_err(file("read", path))?.len();
    if bytes > MOST_BYTES {
        return Err(content(path, format!("{bytes} bytes are too many"), JOIN));
    }
    fs::read_to_string(path).map_err(file("read", path))
}

/// Reads a file that nobody else may read.
pub(crate) fn read_secret(path: &Path) -> Result<String, TlsError> {
    let mode = fs::metadata(path)
        .map_err(file("read", path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        let what = format!(
            "others may read or write this key (mode {:o})",
            mode & 0o777
        );
        return Err(content(
            path,
            what,
            "chmod 600 it; if others may have read it, make a new one",
        ));
    }
    read(path)
}

/// At least one.
pub(crate) fn read_authorities(dir: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = dir.join(AUTHORITY);
    let text = read(&path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(content(&path, "holds no certificate", JOIN)),
        Err(error) => Err(content(&path, error.to_string(), JOIN)),
    }
}

/// A certificate and its key.
pub(crate) type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub(crate) fn read_identity(dir: &Path) -> Result<Pair, TlsError> {
    let path = dir.join(IDENTITY);
    let text = read_secret(&path)?;
    let certificate = CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|e| content(&path, format!("no certificate: {e}"), JOIN))?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|e| content(&path, format!("no private key: {e}"), JOIN))?;
    Ok((certificate, key))
}

/// What tells whether the files were replaced.
pub(crate) fn stamps(dir: &Path) -> [Option<(SystemTime, u64)>; 2] {
    [AUTHORITY, IDENTITY].map(|name| {
        let meta = fs::metadata(dir.join(name)).ok()?;
        Some((
            meta.modified().ok()?,
            std::os::unix::fs::MetadataExt::ino(&meta),
        ))
    })
}

pub(crate) fn certificates_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    let one = |der: &CertificateDer<'_>| pem("CERTIFICATE", der);
    certificates.into_iter().map(one).collect()
}

/// RFC 7468: base64 in lines of 64.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|b| char::from(*b)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Makes a directory that only its owner enters, if it is not there.
pub(crate) fn make_dir(dir: &Path) -> Result<(), TlsError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(file("make", dir))
}

/// Writes a file that must not be there yet.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    if path.exists() {
        let hint = "move it away if the cluster that it belongs to is gone";
        return Err(content(path, "is there already", hint));
    }
    replace(path, text, mode)
}

/// Replaces a file as a whole.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let fresh: PathBuf = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&fresh);
        file("write", path)(source)
    })
}

/// Replaces `identity.pem`.
pub(crate) fn write_identity(
    dir: &Path,
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
) -> Result<(), TlsError> {
    let text = pem("CERTIFICATE", certificate) + &pem("PRIVATE KEY", key.serialized_der());
    replace(&dir.join(IDENTITY), &text, 0o600)
}

/// Writes what an agent or a person needs into a directory, which is made if need be.
///
/// # Errors
/// If it cannot be written.
pub fn save_identity(dir: &Path, authority: &Authority, signed: &Signed) -> Result<(), TlsError> {
    save(
        dir,
        &authority.certificates,
        &signed.certificate,
        &signed.key,
    )
}

pub(crate) fn save(
    dir: &Path,
    authorities: &[CertificateDer<'static>],
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
) -> Result<(), TlsError> {
    make_dir(dir)?;
    replace(&dir.join(AUTHORITY), &certificates_pem(authorities), 0o644)?;
    write_identity(dir, certificate, key)
}

/// Writes what a master that has joined needs. Replaces nothing.
///
/// # Errors
/// If it cannot be written, is there already, or the key is not the authority's.
pub fn save_master(
    dir: &Path,
    authorities: &[CertificateDer<'static>],
    key: &[u8],
) -> Result<(), TlsError> {
    let key = PrivatePkcs8KeyDer::from(key.to_vec());
    let key = KeyPair::try_from(&key)?;
    Authority::new(authorities.to_vec(), key)?.save(dir)
}
