//! What a disk may hold after the power went off, by the rules that file systems promise and no more.
//!
//! - A sync of a file keeps what was written to it before the sync began. A sync of a directory keeps what became of the
//!   names in it. Nothing else is certain.
//! - Of what was not synced, each 4 KiB page of a file is as it was at some moment since, whatever the pages beside it are;
//!   or the disk stopped within it, between two sectors of 512 bytes, and it is of two moments.
//! - A file is as long as it was at some moment since its last sync.
//! - Each name that was not synced was made, moved or removed, or was not. A move happens as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::journal::{Action, Record};
use crate::crash::load::Dice;

const PAGE_LEN: usize = 4096;
const SECTOR_LEN: usize = 512;

/// A file system of which it is known what is certain and what is not.
pub(crate) struct Disk {
    files: Vec<File>,
    /// Names that are certain, and what became of them since.
    names: BTreeMap<String, Node>,
    renamings: Vec<(usize, Renaming)>,
    /// Names as programs see them.
    seen_names: BTreeMap<String, Node>,
    inodes: HashMap<u64, Node>,
    syncs: HashMap<u64, (Node, usize)>,
    count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir(String),
}

#[derive(Default)]
struct File {
    certain: Vec<u8>,
    /// What was done since, each with its place among all actions.
    changes: Vec<(usize, Change)>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

enum Renaming {
    Make(String, Node),
    Move(String, String, Node),
    Remove(String),
}

/// The files of a disk, by path, and its directories.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) dirs: BTreeSet<String>,
}

/// How much of what is uncertain is there. A disk has one for all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Luck {
    /// Percent of pages, names and lengths that are as they were last.
    pub(crate) kept: u64,
    /// Percent of the others that are as they were at the last sync; the rest is from some moment between.
    pub(crate) lost: u64,
    /// Percent of pages in which the disk stopped.
    pub(crate) torn: u64,
}

impl Luck {
    pub(crate) fn any(dice: &mut Dice) -> Self {
        let kept = [0, 5, 50, 80, 97, 100][dice.index(6)];
        Self { kept, lost: [0, 50, 100][dice.index(3)], torn: [0, 5, 30][dice.index(3)] }
    }

    /// How many of `count` changes are there.
    fn of(self, count: usize, dice: &mut Dice) -> usize {
        if dice.below(100) < self.kept {
            count
        } else if dice.below(100) < self.lost {
            0
        } else {
            dice.index(count + 1)
        }
    }
}

impl Image {
    /// Everything in a directory.
    pub(crate) fn of(root: &Path) -> Self {
        let mut image = Self::default();
        image.add(root, root);
        image
    }

    fn add(&mut self, root: &Path, dir: &Path) {
        for item in fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                self.dirs.insert(name);
                self.add(root, &path);
            } else {
                self.files.insert(name, fs::read(&path).unwrap());
            }
        }
    }

    /// Writes it into an empty directory.
    pub(crate) fn write_to(&self, root: &Path) {
        for dir in &self.dirs {
            fs::create_dir(root.join(dir)).unwrap();
        }
        for (name, content) in &self.files {
            fs::write(root.join(name), content).unwrap();
        }
    }
}

impl Disk {
    /// A disk on which everything is certain.
    pub(crate) fn of(image: &Image) -> Self {
        let mut names: BTreeMap<_, _> =
            image.dirs.iter().map(|it| (it.clone(), Node::Dir(it.clone()))).collect();
        let mut files = Vec::new();
        for (name, content) in &image.files {
            names.insert(name.clone(), Node::File(files.len()));
            files.push(File { certain: content.clone(), changes: vec![] });
        }
        Self {
            files,
            seen_names: names.clone(),
            names,
            renamings: vec![],
            inodes: HashMap::new(),
            syncs: HashMap::new(),
            count: 0,
        }
    }

    /// Does what a process did.
    pub(crate) fn apply(&mut self, record: Record) {
        self.count += 1;
        match record.action {
            Action::Open { inode, is_created, is_emptied, is_dir, path } => {
                let node = if is_dir {
                    Node::Dir(path)
                } else if is_created {
                    self.files.push(File::default());
                    let node = Node::File(self.files.len() - 1);
                    self.rename(Renaming::Make(path, node.clone()));
                    node
                } else {
                    self.seen_names.get(&path).unwrap_or_else(|| panic!("{path} comes from nowhere")).clone()
                };
                if is_emptied {
                    self.change(&node, Change::SetLen(0));
                }
                self.inodes.insert(inode, node);
            }
            Action::Write { inode, offset, bytes } => {
                self.change(&self.inodes[&inode].clone(), Change::Write { offset, bytes });
            }
            Action::SetLen { inode, len } => self.change(&self.inodes[&inode].clone(), Change::SetLen(len)),
            Action::SyncBegins { inode, number } => {
                self.syncs.insert(number, (self.inodes[&inode].clone(), self.count));
            }
            Action::SyncEnds { number } => match self.syncs.remove(&number).expect("it began") {
                (Node::File(file), before) => self.files[file].sync(before),
                (Node::Dir(dir), before) => self.sync_names(&dir, before),
            },
            Action::Move { from, to } => {
                let node = self.seen_names[&from].clone();
                self.rename(Renaming::Move(from, to, node));
            }
            Action::Remove { path } => self.rename(Renaming::Remove(path)),
            Action::MakeDir { path } => self.rename(Renaming::Make(path.clone(), Node::Dir(path))),
        }
    }

    /// What programs see: everything, with nothing lost.
    pub(crate) fn seen(&self) -> Image {
        let whole = |file: &File| file.content(&mut |count| count, &mut || None);
        self.image_of(&self.seen_names, &mut |file| whole(file))
    }

    /// What may be there after the power went off now. `is_of_interest` tells which files to build.
    pub(crate) fn after_cut(&self, luck: Luck, dice: &mut Dice, is_of_interest: fn(&str) -> bool) -> Image {
        let mut names = self.names.clone();
        for (_, renaming) in &self.renamings {
            if luck.of(1, dice) == 1 {
                renaming.apply(&mut names);
            }
        }
        names.retain(|name, node| matches!(node, Node::Dir(_)) || is_of_interest(name));
        let mut tearing = dice.clone();
        self.image_of(&names, &mut |file| {
            file.content(&mut |count| luck.of(count, dice), &mut || {
                (tearing.below(100) < luck.torn).then(|| 1 + tearing.index(PAGE_LEN / SECTOR_LEN - 1))
            })
        })
    }

    fn image_of(&self, names: &BTreeMap<String, Node>, content: &mut dyn FnMut(&File) -> Vec<u8>) -> Image {
        let mut image = Image::default();
        // In order of paths, so that a directory comes before what is in it.
        for (name, node) in names {
            let dir = parent(name);
            if !dir.is_empty() && !image.dirs.contains(dir) {
                continue;
            }
            match node {
                Node::Dir(_) => drop(image.dirs.insert(name.clone())),
                Node::File(file) => drop(image.files.insert(name.clone(), content(&self.files[*file]))),
            }
        }
        image
    }

    fn change(&mut self, node: &Node, change: Change) {
        match node {
            Node::File(file) => self.files[*file].changes.push((self.count, change)),
            Node::Dir(dir) => panic!("{dir} is written to"),
        }
    }

    fn rename(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.seen_names);
        self.renamings.push((self.count, renaming));
    }

    fn sync_names(&mut self, dir: &str, before: usize) {
        for (at, renaming) in std::mem::take(&mut self.renamings) {
            if at < before && renaming.dir() == dir {
                renaming.apply(&mut self.names);
            } else {
                self.renamings.push((at, renaming));
            }
        }
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Make(path, node) => drop(names.insert(path.clone(), node.clone())),
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), node.clone());
            }
            Self::Remove(path) => drop(names.remove(path)),
        }
    }

    /// The directory whose names it changes.
    fn dir(&self) -> &str {
        match self {
            Self::Make(path, _) | Self::Remove(path) => parent(path),
            Self::Move(from, to, _) => {
                assert_eq!(parent(from), parent(to), "moves between directories are not understood");
                parent(from)
            }
        }
    }
}

impl File {
    fn sync(&mut self, before: usize) {
        for (at, change) in std::mem::take(&mut self.changes) {
            if at < before {
                change.apply(&mut self.certain);
            } else {
                self.changes.push((at, change));
            }
        }
    }

    /// What may be in it: `moment` chooses how many of so many changes a page has seen, `tear` at which sector the disk
    /// stopped within a page.
    fn content(
        &self,
        moment: &mut dyn FnMut(usize) -> usize,
        tear: &mut dyn FnMut() -> Option<usize>,
    ) -> Vec<u8> {
        let mut content = self.certain.clone();
        if self.changes.is_empty() {
            return content;
        }
        let mut lens = vec![content.len()];
        for (_, change) in &self.changes {
            lens.push(change.len_of_file(lens[lens.len() - 1]));
        }
        let len = lens[moment(self.changes.len())];
        let most = lens.iter().max().copied().unwrap_or_default();
        content.resize(most.next_multiple_of(PAGE_LEN), 0);
        let mut changes_of: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
        for (_, change) in &self.changes {
            for page in change.pages(most) {
                changes_of.entry(page).or_default().push(change);
            }
        }
        for (page, changes) in changes_of {
            let start = page * PAGE_LEN;
            let before = content[start..start + PAGE_LEN].to_vec();
            let at_moment = |count: usize| {
                let mut bytes = before.clone();
                changes[..count].iter().for_each(|change| change.apply_to_page(start, &mut bytes));
                bytes
            };
            let mut bytes = at_moment(moment(changes.len()));
            if let Some(sector) = tear() {
                let rest = at_moment(moment(changes.len()).min(changes.len() / 2));
                bytes[sector * SECTOR_LEN..].copy_from_slice(&rest[sector * SECTOR_LEN..]);
            }
            content[start..start + PAGE_LEN].copy_from_slice(&bytes);
        }
        content.resize(len, 0);
        content
    }
}

impl Change {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset..end].copy_from_slice(&bytes);
            }
            Self::SetLen(len) => content.resize(len, 0),
        }
    }

    fn len_of_file(&self, before: usize) -> usize {
        match self {
            Self::Write { offset, bytes } => before.max(offset + bytes.len()),
            Self::SetLen(len) => *len,
        }
    }

    /// The pages that it touches, in a file that is never longer than `most`.
    fn pages(&self, most: usize) -> std::ops::Range<usize> {
        match self {
            Self::Write { offset, bytes } => offset / PAGE_LEN..(offset + bytes.len()).div_ceil(PAGE_LEN),
            Self::SetLen(len) => len / PAGE_LEN..most.div_ceil(PAGE_LEN),
        }
    }

    fn apply_to_page(&self, start: usize, page: &mut [u8]) {
        match self {
            Self::Write { offset, bytes } => {
                let from = start.max(*offset);
                let to = (start + PAGE_LEN).min(offset + bytes.len());
                page[from - start..to - start].copy_from_slice(&bytes[from - offset..to - offset]);
            }
            Self::SetLen(len) => page[len.saturating_sub(start).min(PAGE_LEN)..].fill(0),
        }
    }
}

/// The directory that a path is in; "" is the root.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
