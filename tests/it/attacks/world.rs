//! Streams as the real writer makes them, decision by decision, and every form in which they are handed over.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::SigningKey;
use haldir::domain::audit::LogAction;
use haldir::domain::budgets::AuthorizePayment;
use haldir::domain::custody::RotateSigner;
use haldir::domain::id::{
    Actor, AgentId, ApprovalId, AuthorizationId, EntryId, KeyPrefix, RequestId, SessionId, TenantId,
};
use haldir::domain::keys::{MintKey, RevokeKey};
use haldir::domain::money::Money;
use haldir::domain::scope::{Grant, KeyScopes};
use haldir::domain::sessions::{CheckPermission, OpenSession, RevokeSession};
use haldir::domain::time::Timestamp;
use haldir::domain::{Command, Decision, Envelope, Recorded, Tenant, apply, decide, record};
use haldir::format::certificate::KeyCertificate;
use haldir::format::chain::{EntryHash, PublicKey, Signer};
use haldir::format::checkpoint::Checkpoint;
use haldir::format::entry::{self, HEADER_LEN, TRAILER_LEN, seal};
use haldir::format::merkle::{Tree, TreeHash, leaf_hash};
use haldir::format::proof::{Node, Nodes, consistency_path, inclusion_path};
use haldir::format::proof_file::ProofFile;
use haldir::format::tiles::{Content, encode_bundle, tiles};
use haldir::operations::decoded::entry_json;
use haldir::operations::ocsf;
use serde_json::{Value, json};

/// The operator's signing key, the one it rotates to, a stranger's, and two root keys.
pub(super) const OURS: u8 = 1;
pub(super) const NEXT: u8 = 2;
pub(super) const STRANGER: u8 = 9;
pub(super) const ROOT: u8 = 21;
pub(super) const OTHER_ROOT: u8 = 22;

pub(super) const ACME: &str = "acme";
pub(super) const EMCA: &str = "emca";

pub(super) fn signer(key: u8) -> Signer {
    Signer::new(SigningKey::from_bytes(&[key; 32]))
}

pub(super) fn public(key: u8) -> PublicKey {
    signer(key).public_key()
}

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(super) fn certificate(root: u8, subject: u8) -> KeyCertificate {
    KeyCertificate::sign(&signer(root), public(subject))
}

/// A stream that is being written.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) tenant: TenantId,
    pub(super) entries: Vec<Vec<u8>>,
    state: Tenant,
    prev: EntryHash,
    at: u64,
    pub(super) key: u8,
}

impl Story {
    pub(super) fn new(tenant_name: &str, key: u8) -> Self {
        Self {
            tenant: tenant(tenant_name),
            entries: Vec::new(),
            state: Tenant::default(),
            prev: EntryHash::GENESIS,
            at: 1_700_000_000_000_000,
            key,
        }
    }

    /// Ten entries in which everything happens as it should.
    pub(super) fn honest() -> Self {
        Self::of(ACME, OURS, "3")
    }

    /// The same with another tenant, key or first payment.
    pub(super) fn of(tenant_name: &str, key: u8, first_payment: &str) -> Self {
        let mut story = Self::new(tenant_name, key);
        story.tell(Actor::FirstCaller, mint("A", &["*"]));
        story.tell(admin(), open("s"));
        story.tell(admin(), pay("s", first_payment, 1));
        story.tell(admin(), act("s", 1));
        story.tell(admin(), check("s"));
        story.tell(admin(), pay("s", "4", 2));
        story.tell(admin(), mint("B", &["sessions:read", "audit:read"]));
        story.tell(admin(), act("s", 2));
        story.tell(admin(), revoke("s"));
        story.tell(admin(), open("t"));
        story
    }

    /// The beginning of it.
    pub(super) fn honest_until(size: usize) -> Self {
        Self::replay(ACME, OURS, &Self::honest().entries[..size])
    }

    /// Ten entries of which the first six are signed by one key and the others by the next.
    pub(super) fn rotated() -> Self {
        let mut story = Self::honest_until(5);
        story.rotate(NEXT);
        for number in 3..7 {
            story.tell(admin(), act("s", number));
        }
        story
    }

    /// Goes on from entries that exist.
    fn replay(tenant_name: &str, key: u8, entries: &[Vec<u8>]) -> Self {
        let mut story = Self::new(tenant_name, key);
        for bytes in entries {
            let entry = entry::open(bytes).unwrap();
            apply(&mut story.state, &entry.recorded);
            (story.prev, story.at) = (entry.hash, entry.recorded.at.micros());
            story.entries.push(bytes.clone());
        }
        story
    }

    fn envelope(&self, actor: Actor, command: Command) -> Envelope {
        let seq = self.entries.len();
        Envelope {
            seq: seq as u64,
            at: Timestamp::from_micros(self.at + 1_250_000),
            is_deployment_new: actor == Actor::FirstCaller,
            actor,
            request_id: RequestId::parse(&format!("request-{seq}")).unwrap(),
            idempotency: None,
            command,
        }
    }

    /// Decides and writes what follows.
    pub(super) fn tell(&mut self, actor: Actor, command: Command) {
        let envelope = self.envelope(actor, command);
        let Ok(Decision::Events(events)) = decide(&self.state, &envelope) else { panic!("refused") };
        for recorded in record(&envelope, events) {
            self.write(&recorded);
        }
    }

    /// Hands the stream to another key.
    pub(super) fn rotate(&mut self, key: u8) {
        let public_key = public(key).to_bytes();
        self.tell(Actor::Operator, Command::RotateSigner(RotateSigner { public_key }));
        self.key = key;
    }

    /// Writes what the rules give in another state than this, or with changes: validly signed all the same.
    pub(super) fn forge(
        &mut self,
        state: &Self,
        actor: Actor,
        command: Command,
        change: impl FnOnce(&mut Recorded),
    ) {
        let envelope = self.envelope(actor, command);
        let Ok(Decision::Events(events)) = decide(&state.state, &envelope) else { panic!("refused") };
        let mut recorded = record(&envelope, events).next().unwrap();
        change(&mut recorded);
        self.write(&recorded);
    }

    pub(super) fn write(&mut self, recorded: &Recorded) {
        let sealed = seal(&self.tenant, recorded, &self.prev, &signer(self.key)).unwrap();
        (self.prev, self.at) = (sealed.hash, recorded.at.micros());
        apply(&mut self.state, recorded);
        self.entries.push(sealed.bytes);
    }

    /// Changes header or payload of an entry, and hashes, signs and links it and all later ones again.
    pub(super) fn rewritten(mut self, seq: usize, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        const PAYLOAD_LEN: std::ops::Range<usize> = HEADER_LEN - 4..HEADER_LEN;
        const PREV: std::ops::Range<usize> = HEADER_LEN - 36..HEADER_LEN - 4;
        let signer = signer(self.key);
        let mut change = Some(change);
        let mut prev: Option<EntryHash> = None;
        for bytes in &mut self.entries[seq..] {
            bytes.truncate(bytes.len() - TRAILER_LEN);
            if let Some(change) = change.take() {
                let len = bytes.len();
                change(bytes);
                if bytes.len() != len {
                    let payload_len = u32::try_from(bytes.len() - HEADER_LEN).unwrap();
                    bytes[PAYLOAD_LEN].copy_from_slice(&payload_len.to_le_bytes());
                }
            }
            if let Some(prev) = prev {
                bytes[PREV].copy_from_slice(&prev.0);
            }
            let hash = EntryHash::of(bytes);
            bytes.extend_from_slice(&hash.0);
            bytes.extend_from_slice(&signer.id().0);
            bytes.extend_from_slice(&signer.sign(&hash));
            prev = Some(hash);
        }
        self
    }

    pub(super) fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    fn tree_at(&self, size: u64) -> Tree {
        tree_of(&self.entries[..usize::try_from(size).unwrap()])
    }

    pub(super) fn checkpoint_by(&self, key: u8, size: u64) -> String {
        let root = self.tree_at(size).root();
        Checkpoint { tenant: self.tenant.clone(), size, root }.sign(&signer(key))
    }

    pub(super) fn checkpoint(&self, size: u64) -> String {
        self.checkpoint_by(self.key, size)
    }

    /// The ledger export of everything.
    pub(super) fn export(&self) -> Export {
        self.range(0, self.size())
    }

    /// The ledger export of a part.
    pub(super) fn range(&self, from: u64, size: u64) -> Export {
        let place = |seq: u64| usize::try_from(seq).unwrap();
        let entries = self.entries[place(from)..place(size)].to_vec();
        let prev = if from == 0 { EntryHash::GENESIS } else { hash_of(&self.entries[place(from) - 1]) };
        let tree = self.tree_at(from);
        let keys = if self.key == NEXT { vec![OURS, NEXT] } else { vec![self.key] };
        let header = json!({
            "type": "header", "format": "haldir-ledger", "version": 1, "tenant_id": self.tenant.as_str(),
            "stream_size": self.size(), "from": from, "prev": prev.to_string(),
            "peaks": tree.peaks().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "public_keys": keys.into_iter().map(named).collect::<Vec<_>>(), "certificates": [],
        });
        let head = self.entries[..place(size)].last().map_or(EntryHash::GENESIS, |bytes| hash_of(bytes));
        let end = json!({
            "type": "end", "size": size, "head": head.to_string(), "root": self.tree_at(size).root().to_string(),
            "checkpoint": self.checkpoint(size),
        });
        Export { header, lines: entries.iter().map(|bytes| line_of(bytes)).collect(), end }
    }

    /// The lines for a SIEM.
    pub(super) fn ocsf(&self) -> Vec<String> {
        let line = |bytes: &Vec<u8>| ocsf::line(&entry::open(bytes).unwrap(), bytes) + "\n";
        self.entries.iter().map(line).collect()
    }

    /// The folder of tiles.
    pub(super) fn tiles(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files =
            BTreeMap::from([("checkpoint".to_owned(), self.checkpoint(self.size()).into_bytes())]);
        for tile in tiles(self.size()) {
            let first = usize::try_from(tile.first()).unwrap();
            let bytes = match tile.content {
                Content::Entries => encode_bundle(&self.entries[first..][..tile.width.into()]).unwrap(),
                Content::Hashes { .. } => tile.read(self).unwrap(),
            };
            files.insert(tile.path(), bytes);
        }
        files
    }

    pub(super) fn proof_file(&self, seq: u64) -> ProofFile {
        ProofFile {
            entry: self.entries[usize::try_from(seq).unwrap()].clone(),
            index: seq,
            path: inclusion_path(self, seq, self.size()).unwrap(),
            checkpoint: self.checkpoint(self.size()),
        }
    }

    pub(super) fn tree_head(&self) -> Value {
        let (size, root, signed_at) = (self.size(), self.tree_at(self.size()).root(), 1_700_000_100);
        let signer = signer(self.key);
        json!({
            "tree_size": size, "root_hash": root.to_string(), "signed_at": signed_at,
            "signature": HEXLOWER.encode(&signer.sign_tree_head(size, &root, signed_at)),
            "algorithm": "Ed25519-over-canonical-sth", "signing_key_source": "signing.key",
            "tenant_id": self.tenant.as_str(), "public_key": HEXLOWER.encode(&signer.public_key().to_bytes()),
            "key_id": signer.id().to_string(),
        })
    }

    pub(super) fn inclusion(&self, seq: u64) -> Value {
        let path = inclusion_path(self, seq, self.size()).unwrap();
        json!({
            "algorithm": "RFC6962-SHA256", "entry_id": seq.to_string(), "leaf_index": seq,
            "leaf_hash": leaf_hash(&self.entries[usize::try_from(seq).unwrap()]).to_string(),
            "tree_size": self.size(), "root_hash": self.tree_at(self.size()).root().to_string(),
            "audit_path": path.iter().map(ToString::to_string).collect::<Vec<_>>(), "sth": self.tree_head(),
        })
    }

    pub(super) fn consistency(&self, first: u64) -> Value {
        let second = self.size();
        let path = consistency_path(self, first, second).unwrap();
        json!({
            "algorithm": "RFC6962-SHA256", "first_size": first, "second_size": second,
            "first_root": self.tree_at(first).root().to_string(),
            "second_root": self.tree_at(second).root().to_string(),
            "consistency_path": path.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl Nodes for Story {
    type Error = String;

    fn node(&self, node: Node) -> Result<TreeHash, String> {
        let leaves = node.leaves().ok_or("no such node")?;
        let place = |seq: u64| usize::try_from(seq).unwrap();
        let below = self.entries.get(place(leaves.start)..place(leaves.end)).ok_or("beyond the tree")?;
        Ok(tree_of(below).root())
    }
}

/// A ledger export that can still be changed.
#[derive(Clone)]
pub(super) struct Export {
    pub(super) header: Value,
    /// The lines of the entries, without their ends.
    pub(super) lines: Vec<String>,
    pub(super) end: Value,
}

impl Export {
    pub(super) fn render(&self) -> Vec<u8> {
        format!(
            "{}\n{}{}\n",
            self.header,
            self.lines.iter().map(|line| line.clone() + "\n").collect::<String>(),
            self.end
        )
        .into_bytes()
    }

    /// Changes the export, and renders it.
    pub(super) fn but(mut self, change: impl FnOnce(&mut Self)) -> Vec<u8> {
        change(&mut self);
        self.render()
    }
}

pub(super) fn line_of(bytes: &[u8]) -> String {
    // What cannot be opened has no labels; those of the first entry must do.
    entry::open(bytes).map_or_else(
        |_| {
            let entry = BASE64.encode(bytes);
            json!({ "type": "entry", "seq": 0, "kind": "", "at": "", "hash": "", "entry": entry }).to_string()
        },
        |entry| entry_json(&entry, bytes).to_string(),
    )
}

pub(super) fn named(key: u8) -> Value {
    let key = public(key);
    json!({ "key_id": key.id().to_string(), "public_key": HEXLOWER.encode(&key.to_bytes()) })
}

pub(super) fn hash_of(bytes: &[u8]) -> EntryHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[bytes.len() - TRAILER_LEN..][..32]);
    EntryHash(hash)
}

pub(super) fn tree_of(entries: &[Vec<u8>]) -> Tree {
    let mut tree = Tree::default();
    for entry in entries {
        tree.push(leaf_hash(entry));
    }
    tree
}

pub(super) fn api_key(letter: &str) -> KeyPrefix {
    KeyPrefix::parse(&format!("hld_{}", letter.repeat(8))).unwrap()
}

pub(super) fn admin() -> Actor {
    Actor::Key(api_key("A"))
}

pub(super) fn mint(letter: &str, scopes: &[&str]) -> Command {
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let scopes = KeyScopes::parse(&scopes).unwrap();
    Command::MintKey(MintKey { prefix: api_key(letter), hash: [0x11; 32], name: "key".to_owned(), scopes })
}

pub(super) fn revoke_key(letter: &str) -> Command {
    Command::RevokeKey(RevokeKey { prefix: api_key(letter) })
}

fn session(name: &str) -> SessionId {
    SessionId::parse(&format!("ses_{name}")).unwrap()
}

pub(super) fn open(name: &str) -> Command {
    let usd = |text| Money::parse(text).unwrap();
    Command::OpenSession(OpenSession {
        session_id: session(name),
        agent_id: AgentId::parse("agent-1").unwrap(),
        grant: Grant { scopes: vec!["read".to_owned(), "spend".to_owned()], cap: Some(usd("5")) },
        ttl_s: 3600,
        agent_limit: None,
        scopes_are_default: false,
        parent: None,
    })
}

pub(super) fn revoke(name: &str) -> Command {
    Command::RevokeSession(RevokeSession { session_id: session(name) })
}

pub(super) fn check(name: &str) -> Command {
    Command::CheckPermission(CheckPermission { session_id: session(name), scope: "delete".to_owned() })
}

pub(super) fn pay(name: &str, amount: &str, number: u8) -> Command {
    Command::AuthorizePayment(AuthorizePayment {
        authorization_id: AuthorizationId::issue([number; 16]),
        session_id: session(name),
        amount: Money::parse(amount).unwrap(),
        currency: "USD".to_owned(),
        description: "what for".to_owned(),
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        request_id: ApprovalId::parse("").unwrap(),
    })
}

pub(super) fn act(name: &str, number: u8) -> Command {
    Command::LogAction(LogAction {
        entry_id: EntryId::issue([number; 16]),
        session_id: session(name),
        action: "send".to_owned(),
        tool: "email".to_owned(),
        cost: Money::parse("0.002").unwrap(),
        details_digest: None,
    })
}
