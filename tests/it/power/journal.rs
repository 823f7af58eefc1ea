//! What a process did to its files, as `recorder.c` wrote it down.

use std::fs;
use std::path::{Path, PathBuf};

use super::compiled;
use crate::server::{Home, Server};

/// Bytes of a record before its own bytes.
const HEAD_LEN: usize = 21;

/// One thing that was done. Files and directories are told apart by their inodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Open { inode: u64, is_created: bool, is_emptied: bool, is_dir: bool, path: String },
    Write { inode: u64, offset: usize, bytes: Vec<u8> },
    SetLen { inode: u64, len: usize },
    SyncBegins { inode: u64, number: u64 },
    SyncEnds { number: u64 },
    Move { from: String, to: String },
    Remove { path: String },
    MakeDir { path: String },
}

/// An action, and the length of the journal with it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) action: Action,
    pub(crate) end: u64,
}

/// A journal that a server writes.
pub(crate) struct Journal {
    path: PathBuf,
    shim: PathBuf,
}

impl Journal {
    /// A journal in a directory that no server uses.
    pub(crate) fn new(dir: &Path) -> Self {
        let shim = compiled("recorder.c", &["-shared", "-fPIC", "-ldl"], &dir.join("recorder.so"));
        Self { path: dir.join("journal"), shim }
    }

    /// Starts a server whose every action on a file below its home is written down.
    pub(crate) fn serve(&self, home: &Home) -> Server {
        let root = home.root().to_string_lossy().into_owned();
        let (path, shim) = (self.path.to_string_lossy(), self.shim.to_string_lossy());
        home.serve_with(&[], &[("LD_PRELOAD", &shim), ("RECORDER_DIR", &root), ("RECORDER_JOURNAL", &path)])
    }

    /// How much is in it now. Whatever was done before is in it.
    pub(crate) fn len(&self) -> u64 {
        fs::metadata(&self.path).expect("the recorder makes the journal").len()
    }

    /// How much is in it now, for as long as the file is there.
    pub(crate) fn clock(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let path = self.path.clone();
        move || fs::metadata(&path).map_or(0, |it| it.len())
    }

    pub(crate) fn read(&self) -> Vec<Record> {
        let bytes = fs::read(&self.path).expect("the journal can be read");
        let (mut records, mut at) = (Vec::new(), 0);
        while let Some(head) = bytes.get(at..at + HEAD_LEN) {
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            let len = u32::from_le_bytes(head[17..HEAD_LEN].try_into().unwrap()) as usize;
            let content = &bytes[at + HEAD_LEN..at + HEAD_LEN + len];
            at += HEAD_LEN + len;
            records.push(Record { action: action(head[0], number(1), number(9), content), end: at as u64 });
        }
        assert_eq!(at, bytes.len(), "the journal ends within a record");
        records
    }
}

fn action(kind: u8, a: u64, b: u64, content: &[u8]) -> Action {
    let path = || String::from_utf8(content.to_vec()).unwrap();
    let size = |number| usize::try_from(number).unwrap();
    match kind {
        b'O' => Action::Open {
            inode: a,
            is_created: b & 1 != 0,
            is_emptied: b & 2 != 0,
            is_dir: b & 4 != 0,
            path: path(),
        },
        b'W' => Action::Write { inode: a, offset: size(b), bytes: content.to_vec() },
        b'T' => Action::SetLen { inode: a, len: size(b) },
        b'B' => Action::SyncBegins { inode: a, number: b },
        b'E' => Action::SyncEnds { number: b },
        b'R' => {
            let path = path();
            let (from, to) = path.split_once('\0').expect("two paths");
            Action::Move { from: from.to_owned(), to: to.to_owned() }
        }
        b'U' => Action::Remove { path: path() },
        b'M' => Action::MakeDir { path: path() },
        other => panic!("the journal has a record of kind {other}"),
    }
}
