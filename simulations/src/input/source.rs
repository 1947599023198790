//! Where bytes come from: a file, plain or gzip by its first bytes, standard input, or memory.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::{InputError, Place};

/// Bytes read at a time.
const BUFFER: usize = 1 << 16;
/// First bytes of a gzip member (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The folder with recorded traces: `BERTH_TRACES`, if it is set and not empty.
pub fn traces_dir() -> Option<PathBuf> {
    std::env::var_os("BERTH_TRACES")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// An input with its name.
pub struct Source {
    name: Arc<str>,
    path: PathBuf,
    bytes: Box<dyn Read + Send>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name).finish()
    }
}

impl Source {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be opened or its first bytes cannot be read.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let name: Arc<str> = path.display().to_string().into();
        if path.as_os_str() == "-" {
            return Self::sniff("standard input".into(), path, io::stdin());
        }
        match File::open(path) {
            Ok(file) => Self::sniff(name, path, file),
            Err(source) => Err(InputError::Unreadable { file: name, source }),
        }
    }

    /// Bytes in memory under a made-up name.
    ///
    /// # Errors
    /// Never for plain bytes; the signature is that of [`open`](Self::open).
    pub fn memory(name: &str, bytes: impl Into<Vec<u8>>) -> Result<Self, InputError> {
        Self::sniff(name.into(), Path::new(name), Cursor::new(bytes.into()))
    }

    fn sniff(
        name: Arc<str>,
        path: &Path,
        bytes: impl Read + Send + 'static,
    ) -> Result<Self, InputError> {
        let mut reader = BufReader::with_capacity(BUFFER, bytes);
        let first = match reader.fill_buf() {
            Ok(first) => first,
            Err(source) => return Err(InputError::Unreadable { file: name, source }),
        };
        let bytes: Box<dyn Read + Send> = if first.starts_with(&GZIP) {
            Box::new(Unpacking(MultiGzDecoder::new(reader)))
        } else {
            Box::new(reader)
        };
        let path = path.to_owned();
        Ok(Self { name, path, bytes })
    }

    /// Its name, for errors.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's name without folders and without `.gz` and the extension before it.
    pub fn stem(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        name.rsplit_once('.')
            .map_or(name, |(stem, _)| stem)
            .to_owned()
    }

    /// The stem with the folder it is in, such as `philly/workload-1`, for reports.
    pub fn title(&self) -> String {
        let folder = self.path.parent().and_then(Path::file_name);
        match folder {
            Some(folder) => format!("{}/{}", folder.to_string_lossy(), self.stem()),
            None => self.stem(),
        }
    }

    /// Everything, as text.
    ///
    /// # Errors
    /// If it cannot be read, is longer than `limit` bytes, or is not UTF-8.
    pub fn text(self, limit: u64) -> Result<String, InputError> {
        let name = Arc::clone(&self.name);
        let mut bytes = Vec::new();
        let read = self
            .bytes
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes);
        if let Err(error) = read {
            return Err(read_error(Place::file(&name), error));
        }
        if bytes.len() as u64 > limit {
            let what = format!("longer than {limit} bytes");
            return Err(Place::file(&name).error(what, "is this the right file?"));
        }
        String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
            Place::line(&name, line).error("not UTF-8 text", "is this the right file?")
        })
    }

    /// Name and bytes.
    pub fn into_reader(self) -> (Arc<str>, Box<dyn Read + Send>) {
        (self.name, self.bytes)
    }
}

/// Turns an error while reading into one that names the place.
pub(crate) fn read_error(place: Place, source: io::Error) -> InputError {
    if source.get_ref().is_some_and(|inner| inner.is::<Damaged>()) {
        InputError::Compressed { place, source }
    } else {
        let file = place.file;
        InputError::Unreadable { file, source }
    }
}

/// Marks what the decoder finds wrong, so that it is told apart from a disk that fails.
struct Unpacking<R>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Unpacking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput => io::Error::new(error.kind(), Damaged(error)),
            _ => error,
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Damaged(io::Error);
