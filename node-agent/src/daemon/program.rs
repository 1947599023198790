//! Finding a task's program the way a shell does, and saying clearly what is wrong if it is not there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why there is nothing to run: the shell's exit code and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotRunnable {
    /// 127 if it is not there, 126 if it is but cannot be run.
    pub(super) code: i32,
    /// In words.
    pub(super) reason: String,
}

/// The absolute path of `program`: looked up in `path` if it has no slash, else relative to `work_dir`.
///
/// # Errors
/// If there is no such program, or it is not executable.
pub(super) fn find(program: &str, path: &str, work_dir: &Path) -> Result<PathBuf, NotRunnable> {
    if program.contains('/') {
        let file = work_dir.join(program);
        return match kind(&file) {
            Kind::Program => Ok(file),
            Kind::Absent => Err(not_found(format!("{} does not exist", file.display()))),
            Kind::NotExecutable(why) => Err(not_executable(&file, why)),
        };
    }
    let mut blocked = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() {
            work_dir
        } else {
            Path::new(dir)
        };
        let file = dir.join(program);
        match kind(&file) {
            Kind::Program if file.is_absolute() => return Ok(file),
            Kind::Program => return Ok(work_dir.join(file)),
            Kind::NotExecutable(why) => blocked = Some(not_executable(&file, why)),
            Kind::Absent => {}
        }
    }
    if let Some(blocked) = blocked {
        return Err(blocked);
    }
    let hint = match kind(&work_dir.join(program)) {
        Kind::Absent => String::new(),
        _ => format!("; it is in the working directory: say `./{program}` or name an interpreter"),
    };
    Err(not_found(format!(
        "`{program}` (looked in PATH {path}{hint})"
    )))
}

enum Kind {
    Program,
    Absent,
    NotExecutable(&'static str),
}

fn kind(file: &Path) -> Kind {
    match std::fs::metadata(file) {
        Err(_) => Kind::Absent,
        Ok(metadata) if metadata.is_dir() => Kind::NotExecutable("it is a directory"),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Kind::NotExecutable("it is not executable (chmod +x)")
        }
        Ok(_) => Kind::Program,
    }
}

fn not_found(what: String) -> NotRunnable {
    NotRunnable {
        code: 127,
        reason: format!("command not found: {what}"),
    }
}

fn not_executable(file: &Path, why: &str) -> NotRunnable {
    NotRunnable {
        code: 126,
        reason: format!("cannot run {}: {why}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_in_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, work) = (dir.path().join("bin"), dir.path().join("work"));
        for d in [&bin, &work] {
            std::fs::create_dir(d).unwrap();
        }
        let put = |file: &Path, mode| {
            std::fs::write(file, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(file, PermissionsExt::from_mode(mode)).unwrap();
        };
        put(&bin.join("good"), 0o755);
        put(&bin.join("plain"), 0o644);
        put(&work.join("train.py"), 0o755);
        let path = format!("/absent:{}", bin.display());
        let find = |program| find(program, &path, &work);
        assert_eq!(find("good"), Ok(bin.join("good")));
        assert_eq!(find("./train.py"), Ok(work.join("./train.py")));
        let plain = find("plain").unwrap_err();
        assert_eq!(plain.code, 126);
        assert!(plain.reason.contains("chmod +x"), "{}", plain.reason);
        let typo = find("trian.py").unwrap_err();
        assert_eq!(typo.code, 127);
        assert_eq!(
            typo.reason,
            format!("command not found: `trian.py` (looked in PATH {path})")
        );
        let local = find("train.py").unwrap_err();
        assert!(
            local.reason.contains("say `./train.py`"),
            "{}",
            local.reason
        );
        assert_eq!(find("./absent").unwrap_err().code, 127);
        assert_eq!(find("/").unwrap_err().code, 126);
    }
}
