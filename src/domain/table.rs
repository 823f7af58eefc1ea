//! The ordered map in which state is kept.
//!
//! Copying a table takes no time and almost no room: copies share what they have in common, and a change copies only what
//! it touches. So readers, snapshots and a batch that may have to be taken back each hold a whole state of their own.

/// Entries that stand together in memory, and are copied together when one of them changes while a copy is held.
const CHUNK_LEN: usize = 32;

/// An ordered map whose copies share their content. Its order, and so everything that is told of it, is the order of keys.
pub type Table<K, V> = immutable_chunkmap::map::Map<K, V, CHUNK_LEN>;
