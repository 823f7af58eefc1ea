//! Read models, kept behind the ledger and rebuilt by deleting them.
//!
//! [`follower`] reads what was committed and remembers how far it came; [`audit`] is what it keeps: an index of audited
//! actions and their cost, which [`walk`] goes through in order; [`sparse`], where events of rare kinds stand; and [`tree`], the
//! hashes of the Merkle trees. A reader waits until the view has come as far as the ledger had when it asked.

pub mod audit;
pub mod follower;
pub mod sparse;
pub mod tree;
pub mod walk;
