//! A file system of our own, whose power can be cut.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::compiled;

/// Bytes of the file that the file system is in. Most of it is never written.
const LEN: u64 = 256 << 20;

/// An ext4 file system in a file, mounted on a directory. It ends with its last mount.
pub(crate) struct PowerSupply {
    on: PathBuf,
    image: PathBuf,
    shutdown: PathBuf,
    _dir: TempDir,
}

impl PowerSupply {
    /// Mounts a new file system on a directory, which is made. Says why, where that is not possible: it takes root, loop
    /// devices and ext4.
    pub(crate) fn new(on: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount".to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, shutdown) = (dir.path().join("image"), dir.path().join("shutdown"));
        File::create(&image).and_then(|file| file.set_len(LEN)).unwrap();
        run("mkfs.ext4", &["-q", &image.to_string_lossy()])?;
        fs::create_dir(on).unwrap();
        let shutdown = compiled("shutdown.c", &[], &shutdown);
        let supply = Self { on: on.to_path_buf(), image, shutdown, _dir: dir };
        supply.mount()?;
        fs::remove_dir(on.join("lost+found")).unwrap();
        Ok(supply)
    }

    /// Cuts the power: what has not reached the disk will never be there, and nothing more can be written.
    pub(crate) fn cut(&self) {
        // Written like everything else, one of them synced and the other not.
        let write = |name| -> std::io::Result<File> {
            let mut file = File::create(self.on.join(name))?;
            file.write_all(b"here")?;
            Ok(file)
        };
        let synced = write("synced").unwrap();
        synced.sync_all().unwrap();
        File::open(&self.on).unwrap().sync_all().unwrap();
        write("unsynced").unwrap();
        run(&self.shutdown.to_string_lossy(), &[&self.on.to_string_lossy()]).unwrap();
        assert!(fs::write(self.on.join("late"), "here").is_err(), "the disk takes writes after the cut");
    }

    /// Switches the power on again. Nobody may be using a file any more.
    pub(crate) fn restore(&self) {
        self.unmount().unwrap();
        self.mount().unwrap();
        let read = |name| fs::read_to_string(self.on.join(name)).unwrap_or_default();
        assert_eq!(read("synced"), "here", "a cut takes what was synced: it proves nothing");
        assert_eq!(read("unsynced"), "", "a cut leaves what was not synced: it proves nothing");
        fs::remove_file(self.on.join("synced")).unwrap();
        let _ = fs::remove_file(self.on.join("unsynced"));
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-t", "ext4", "-o", "loop", &self.image.to_string_lossy(), &self.on.to_string_lossy()])
    }

    fn unmount(&self) -> Result<(), String> {
        let mut done = Ok(());
        // Whoever was killed may hold a file for a moment.
        for _ in 0..100 {
            done = run("umount", &[&self.on.to_string_lossy()]);
            if done.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        done
    }
}

impl Drop for PowerSupply {
    fn drop(&mut self) {
        // The loop device goes with its last mount.
        if self.unmount().is_err() {
            let _ = run("umount", &["-l", &self.on.to_string_lossy()]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{program}: {}", text.trim()))
}
