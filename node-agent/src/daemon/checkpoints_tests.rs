use super::*;

fn file(dir: &Path, name: &str, content: &[u8]) -> CheckpointFile {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    CheckpointFile {
        path: name.into(),
        bytes: content.len() as u64,
        sha256: hex(&Sha256::digest(content)),
    }
}

fn save(base: &Path, epoch: u32, step: u64) -> Reported {
    let base = base.join(format!("epoch-{epoch}"));
    let path = base.join(format!("step-{step}"));
    std::fs::create_dir_all(&path).unwrap();
    let files = vec![
        file(&path, "weights", format!("w{step}").as_bytes()),
        file(&path, "shard-1/optimizer", b"o"),
    ];
    Reported {
        job: JobId(7),
        epoch: Epoch(epoch),
        step,
        base,
        path,
        files,
        save_ms: 5,
    }
}

#[test]
fn a_sound_checkpoint_verifies_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let record = verify(save(dir.path(), 1, 100)).unwrap();
    assert_eq!((record.step, record.bytes), (100, 5));
    check(&record).unwrap();
    // The same report again gives the same record.
    assert_eq!(verify(save(dir.path(), 1, 100)).unwrap(), record);
}

#[test]
fn reports_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, b"s").unwrap();
    type Spoil = fn(&mut Reported);
    let cases: [(&str, Spoil); 9] = [
        ("bytes, not 3", |r| r.files[0].bytes = 3),
        ("has SHA-256", |r| r.files[0].sha256 = "00".into()),
        ("No such file", |r| r.files[0].path = "absent".into()),
        ("is not relative", |r| {
            r.files[0].path = "../step-1/weights".into()
        }),
        ("is not relative", |r| {
            r.files[0].path = "/etc/passwd".into()
        }),
        ("listed twice", |r| r.files.push(r.files[0].clone())),
        ("0 files", |r| r.files.clear()),
        ("is not inside", |r| r.path = r.base.clone()),
        ("is not inside", |r| {
            r.path = r.base.parent().unwrap().join("epoch-2")
        }),
    ];
    std::fs::create_dir_all(dir.path().join("epoch-2")).unwrap();
    for (expected, spoil) in cases {
        let mut reported = save(dir.path(), 1, 1);
        spoil(&mut reported);
        let told = verify(reported).unwrap_err().to_string();
        assert!(told.contains(expected), "{told} does not say {expected}");
    }
    let mut linked = save(dir.path(), 1, 2);
    std::os::unix::fs::symlink(&secret, linked.path.join("link")).unwrap();
    linked.files = vec![CheckpointFile {
        path: "link".into(),
        bytes: 1,
        sha256: hex(&Sha256::digest(b"s")),
    }];
    assert!(matches!(verify(linked), Err(Fault::FilePath(_))));
}

#[test]
fn a_damaged_newest_falls_back_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<_> = [30, 20, 10]
        .map(|step| verify(save(dir.path(), 1, step)).unwrap())
        .into();
    assert_eq!(choose(&records).0.map(|r| r.step), Some(30));
    std::fs::write(dir.path().join("epoch-1/step-30/weights"), b"w31").unwrap();
    std::fs::remove_file(dir.path().join("epoch-1/step-20").join(MANIFEST)).unwrap();
    let (chosen, damaged) = choose(&records);
    assert_eq!(chosen.map(|r| r.step), Some(10));
    assert_eq!(damaged.iter().map(|d| d.step).collect::<Vec<_>>(), [30, 20]);
    assert!(
        damaged[0].reason.contains("has SHA-256"),
        "{}",
        damaged[0].reason
    );
    let manifest = dir.path().join("epoch-1/step-10").join(MANIFEST);
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"save_ms\":5", "\"save_ms\":6")).unwrap();
    let (chosen, damaged) = choose(&records);
    assert_eq!((chosen, damaged.len()), (None, 3));
    assert!(
        damaged[2].reason.contains("changed"),
        "{}",
        damaged[2].reason
    );
}

#[test]
fn pruning_keeps_the_newest_over_epochs_and_what_is_newer() {
    let dir = tempfile::tempdir().unwrap();
    for (epoch, step) in [(1, 10), (1, 20), (2, 15), (2, 25), (2, 35)] {
        verify(save(dir.path(), epoch, step)).unwrap();
    }
    let unverified = save(dir.path(), 1, 5);
    let exists = |epoch: u32, step: u64| {
        dir.path()
            .join(format!("epoch-{epoch}/step-{step}"))
            .exists()
    };
    assert_eq!(
        prune(&dir.path().join("epoch-2"), JobId(8), Epoch(2), 25, 2),
        0
    );
    assert_eq!(
        prune(&dir.path().join("epoch-2"), JobId(7), Epoch(2), 25, 2),
        2
    );
    assert!(!exists(1, 10) && !exists(1, 20));
    assert!(exists(2, 15) && exists(2, 25) && exists(2, 35));
    assert!(unverified.path.exists());
}
