//! What leaders said of where the masters listen, on disk: one line of JSON, replaced as a whole.
//!
//! It only helps to find a leader, so a file that is damaged or of a newer version is no reason not to start: the configured
//! masters are there, and the next leader says it all again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_agent_core::masters::Learned;
use serde::{Deserialize, Serialize};

/// Of the format. A newer one may mean something else by the same names.
const VERSION: u32 = 1;
/// No sound file is larger.
const MOST_BYTES: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(flatten)]
    learned: Learned,
}

/// The file; not kept open.
#[derive(Debug)]
pub(super) struct MastersFile {
    path: PathBuf,
}

impl MastersFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was saved last; nothing if that cannot be told.
    pub(super) fn read(&self) -> Learned {
        match read(&self.path) {
            Ok(learned) => learned,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Learned::default(),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "what leaders said of the masters cannot be read; the configured ones are tried");
                Learned::default()
            }
        }
    }

    /// Replaces it: after a crash there is the old one or the new one.
    ///
    /// # Errors
    /// If the system says no.
    pub(super) fn save(&self, learned: &Learned) -> io::Result<()> {
        let content = Content {
            version: VERSION,
            learned: learned.clone(),
        };
        let mut text = serde_json::to_vec(&content)?;
        text.push(b'\n');
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Learned> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MOST_BYTES {
        return Err(invalid(format!("{bytes} bytes")));
    }
    let content: Content = serde_json::from_slice(&std::fs::read(path)?)?;
    if content.version != VERSION {
        return Err(invalid(format!("version {}", content.version)));
    }
    Ok(content.learned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_read_back_and_nothing_is_better_than_nonsense() {
        let dir = tempfile::tempdir().unwrap();
        let file = MastersFile::new(dir.path().join("masters"));
        assert_eq!(file.read(), Learned::default());
        let learned = |address: &str| Learned {
            cluster_id: u64::MAX,
            addresses: vec![address.to_owned()],
        };
        file.save(&learned("a:1")).unwrap();
        file.save(&learned("b:1")).unwrap();
        assert_eq!(file.read(), learned("b:1"));
        let sound = std::fs::read_to_string(&file.path).unwrap();
        let strange = [
            String::new(),
            sound.replace("\"version\":1", "\"version\":2"),
            sound.replace("b:1\"", ""),
            "[]".to_owned(),
            " ".repeat(100_000) + &sound,
        ];
        for text in strange {
            std::fs::write(&file.path, &text).unwrap();
            assert_eq!(file.read(), Learned::default(), "{text}");
        }
        let grown = sound.replace("{", "{\"since\":3,");
        std::fs::write(&file.path, grown).unwrap();
        assert_eq!(file.read(), learned("b:1"), "unknown keys are passed over");
    }

    #[test]
    fn a_write_that_was_cut_short_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = MastersFile::new(dir.path().join("masters"));
        let learned = Learned {
            cluster_id: 7,
            addresses: vec!["a:1".to_owned()],
        };
        file.save(&learned).unwrap();
        std::fs::write(dir.path().join("masters.new"), "{\"vers").unwrap();
        assert_eq!(file.read(), learned);
        file.save(&learned).unwrap();
        assert_eq!(file.read(), learned);
    }
}
