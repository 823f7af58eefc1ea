//! The audit index: which entries of a stream are audited actions, by session, agent, tool and flag, and what they cost.
//!
//! Rows, all under a tenant's 24-byte name filled with zeros:
//!
//! | Key | Value |
//! |---|---|
//! | `a` tenant ordinal | seq, entry hash, nanos and flags of the actions up to this one |
//! | `i` tenant kind digest ordinal | nothing |
//! | `s` tenant kind digest tool-digest | actions, nanos, tool |
//! | `n` tenant digest of the entry id | seq |
//!
//! `ordinal` numbers a tenant's actions from 0; digests are 16 bytes of BLAKE3, so that texts of any length and content
//! make keys of one length. Two texts with one digest would only cost time: what is found is compared again.

use std::collections::BTreeMap;

use crate::domain::audit::ActionLogged;
use crate::domain::id::{EntryId, SHORT_NAME_LEN_MAX, TenantId};
use crate::domain::money::Money;
use crate::domain::{Event, Recorded};
use crate::format::chain::{EntryHash, HASH_LEN};
use crate::format::entry::{self, Entry};
use crate::store::{Direction, EventStore, PageStore, Row, StoreError};

const ACTIONS: u8 = b'a';
const INDEX: u8 = b'i';
const SPEND: u8 = b's';
const NAMES: u8 = b'n';

const BY_SESSION: u8 = b's';
const BY_AGENT: u8 = b'g';
const BY_TOOL: u8 = b't';
const BY_FLAG: u8 = b'f';
const ALL: u8 = b'a';

/// Which actions to find. Absent parts match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this session.
    pub session_id: Option<String>,
    /// Of this agent.
    pub agent_id: Option<String>,
    /// With this tool.
    pub tool: Option<String>,
    /// Only flagged ones.
    pub flagged_only: bool,
    /// Only among the first so many entries of the stream.
    pub size: Option<u64>,
}

/// An audited action with its place in the chain of audited actions.
#[derive(Debug, Clone)]
pub struct FoundAction {
    /// Position, time and circumstances.
    pub recorded: Recorded,
    /// What was recorded.
    pub action: ActionLogged,
    /// Hash of its ledger entry.
    pub hash: EntryHash,
    /// Hash of the ledger entry of the tenant's action before it; `None` for the first.
    pub prev: Option<EntryHash>,
}

/// What a run of actions comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// What they cost.
    pub cost: Money,
    /// How many were flagged.
    pub flagged: u64,
}

/// What actions cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spend {
    /// The sum.
    pub total: Money,
    /// How many actions.
    pub actions: u64,
    /// The sum for each tool. Actions without a tool are only in the total.
    pub by_tool: BTreeMap<String, Money>,
}

impl<'a> FromIterator<&'a FoundAction> for Spend {
    fn from_iter<T: IntoIterator<Item = &'a FoundAction>>(actions: T) -> Self {
        let mut spend = Self::default();
        for FoundAction { action, .. } in actions {
            spend.actions += 1;
            spend.total = spend.total.plus(action.cost).unwrap_or(spend.total);
            if !action.tool.is_empty() {
                let sum = spend.by_tool.entry(action.tool.clone()).or_default();
                *sum = sum.plus(action.cost).unwrap_or(*sum);
            }
        }
        spend
    }
}

impl Filter {
    pub(super) fn matches(&self, action: &ActionLogged) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        is(&self.session_id, action.session_id.as_str())
            && is(&self.agent_id, action.agent_id.as_str())
            && is(&self.tool, &action.tool)
            && (!self.flagged_only || action.flag.is_some())
    }

    /// The shortest list of ordinals that holds every match.
    pub(super) fn narrowest_index(&self, tenant: &TenantId) -> Vec<u8> {
        match (&self.session_id, &self.agent_id, &self.tool) {
            (Some(session_id), _, _) => group_key(INDEX, tenant, BY_SESSION, session_id),
            (None, Some(agent_id), _) => group_key(INDEX, tenant, BY_AGENT, agent_id),
            (None, None, Some(tool)) => group_key(INDEX, tenant, BY_TOOL, tool),
            (None, None, None) if self.flagged_only => group_key(INDEX, tenant, BY_FLAG, ""),
            (None, None, None) => tenant_key(ACTIONS, tenant),
        }
    }
}

/// Finds actions, newest first, at most `limit`.
///
/// # Errors
///
/// [`StoreError`] when view or ledger cannot be read.
pub fn find(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<FoundAction>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    for row in pages.scan(&filter.narrowest_index(tenant), Direction::Reverse) {
        let (key, _) = row?;
        let action = read_action(pages, store, tenant, ordinal_in(&key)?)?;
        let is_early = filter.size.is_none_or(|size| action.recorded.seq < size);
        if is_early && filter.matches(&action.action) {
            found.push(action);
            if found.len() == limit {
                break;
            }
        }
    }
    Ok(found)
}

/// The action with this ordinal.
pub(super) fn read_action(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    ordinal: u64,
) -> Result<FoundAction, StoreError> {
    let (seq, hash) = read_place(pages, tenant, ordinal)?;
    let prev = if ordinal == 0 { None } else { Some(read_place(pages, tenant, ordinal - 1)?.1) };
    let recorded = read_recorded(store, tenant, seq)?;
    match &recorded.event {
        Event::ActionLogged(action) => Ok(FoundAction { action: action.clone(), recorded, hash, prev }),
        _ => Err(damaged("the view points at an entry that is no action")),
    }
}

/// Where the ledger holds the action with this ordinal: its seq and hash.
pub(super) fn read_place(
    pages: &dyn PageStore,
    tenant: &TenantId,
    ordinal: u64,
) -> Result<(u64, EntryHash), StoreError> {
    let row = read_row(pages, tenant, ordinal)?;
    Ok((row.seq, row.hash))
}

fn read_row(pages: &dyn PageStore, tenant: &TenantId, ordinal: u64) -> Result<ActionRow, StoreError> {
    let value = pages.get(&action_key(tenant, ordinal))?.ok_or_else(|| damaged("an action is missing"))?;
    ActionRow::decode(&value).ok_or_else(|| damaged("an action's row is malformed"))
}

/// What the first so many actions of a tenant come to.
pub(super) fn totals(pages: &dyn PageStore, tenant: &TenantId, actions: u64) -> Result<Totals, StoreError> {
    let last = actions.checked_sub(1).map(|ordinal| read_row(pages, tenant, ordinal)).transpose()?;
    Ok(last.map(|row| row.totals).unwrap_or_default())
}

/// What the ledger holds at this place.
///
/// # Errors
///
/// [`StoreError`] when it cannot be read, or holds nothing there.
pub fn read_recorded(store: &dyn EventStore, tenant: &TenantId, seq: u64) -> Result<Recorded, StoreError> {
    let entries = store.read(tenant, seq, 1)?;
    let bytes = entries.first().ok_or_else(|| damaged("the view is ahead of the ledger"))?;
    Ok(entry::open(bytes).map_err(|error| damaged(&error.to_string()))?.recorded)
}

/// The place of the action with this entry id in its stream.
///
/// # Errors
///
/// [`StoreError`] when view or ledger cannot be read.
pub fn seq_of(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    entry_id: &EntryId,
) -> Result<Option<u64>, StoreError> {
    let Some(value) = pages.get(&name_key(tenant, entry_id))? else {
        return Ok(None);
    };
    let seq: [u8; 8] = value[..].try_into().map_err(|_| damaged("a name's row is malformed"))?;
    let seq = u64::from_be_bytes(seq);
    match read_recorded(store, tenant, seq)?.event {
        Event::ActionLogged(action) if action.entry_id == *entry_id => Ok(Some(seq)),
        _ => Ok(None),
    }
}

/// Sums up what actions cost. `session_id` and `agent_id` both apply when both are given.
///
/// # Errors
///
/// [`StoreError`] when the view cannot be read.
pub fn spend(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    session_id: Option<&str>,
    agent_id: Option<&str>,
) -> Result<Spend, StoreError> {
    let group = match (session_id, agent_id) {
        (Some(session_id), agent_id) => {
            // A session has one agent: its sums are that agent's, or nothing is.
            if let Some(agent_id) = agent_id {
                let filter = Filter { session_id: Some(session_id.to_owned()), ..Filter::default() };
                let newest = find(pages, store, tenant, &filter, 1)?;
                if newest.first().is_none_or(|found| found.action.agent_id.as_str() != agent_id) {
                    return Ok(Spend::default());
                }
            }
            group_key(SPEND, tenant, BY_SESSION, session_id)
        }
        (None, Some(agent_id)) => group_key(SPEND, tenant, BY_AGENT, agent_id),
        (None, None) => group_key(SPEND, tenant, ALL, ""),
    };
    let mut spend = Spend::default();
    for row in pages.scan(&group, Direction::Forward) {
        let sum = ToolSum::decode(&row?.1)?;
        spend.total = spend.total.plus(sum.cost).unwrap_or(spend.total);
        spend.actions += sum.actions;
        if !sum.tool.is_empty() {
            spend.by_tool.insert(sum.tool, sum.cost);
        }
    }
    Ok(spend)
}

/// Rows to be written for a run of entries of one tenant.
pub(super) struct Update<'a> {
    pages: &'a dyn PageStore,
    tenant: &'a TenantId,
    next_ordinal: u64,
    /// What the actions before the next come to, once it was read.
    totals: Option<Totals>,
    rows: Vec<Row>,
    sums: BTreeMap<Vec<u8>, ToolSum>,
}

impl<'a> Update<'a> {
    /// Starts after `next_ordinal` actions.
    pub(super) fn new(pages: &'a dyn PageStore, tenant: &'a TenantId, next_ordinal: u64) -> Self {
        Self { pages, tenant, next_ordinal, totals: None, rows: Vec::new(), sums: BTreeMap::new() }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let Event::ActionLogged(action) = &entry.recorded.event else {
            return Ok(());
        };
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        let before = match self.totals {
            Some(totals) => totals,
            None => totals(self.pages, self.tenant, ordinal)?,
        };
        let totals = Totals {
            cost: before.cost.plus(action.cost).unwrap_or(before.cost),
            flagged: before.flagged + u64::from(action.flag.is_some()),
        };
        self.totals = Some(totals);
        let row = ActionRow { seq: entry.recorded.seq, hash: entry.hash, totals };
        self.rows.push((action_key(self.tenant, ordinal), row.encode()));
        let seq = entry.recorded.seq.to_be_bytes().to_vec();
        self.rows.push((name_key(self.tenant, &action.entry_id), seq));

        let mut index = |kind, text: &str| {
            let mut key = group_key(INDEX, self.tenant, kind, text);
            key.extend_from_slice(&ordinal.to_be_bytes());
            self.rows.push((key, Vec::new()));
        };
        index(BY_SESSION, action.session_id.as_str());
        index(BY_AGENT, action.agent_id.as_str());
        if !action.tool.is_empty() {
            index(BY_TOOL, &action.tool);
        }
        if action.flag.is_some() {
            index(BY_FLAG, "");
        }
        self.add_cost(ALL, "", action)?;
        self.add_cost(BY_SESSION, action.session_id.as_str(), action)?;
        self.add_cost(BY_AGENT, action.agent_id.as_str(), action)
    }

    fn add_cost(&mut self, kind: u8, text: &str, action: &ActionLogged) -> Result<(), StoreError> {
        let mut key = group_key(SPEND, self.tenant, kind, text);
        key.extend_from_slice(&digest(&action.tool));
        if !self.sums.contains_key(&key) {
            let sum = match self.pages.get(&key)? {
                Some(value) => ToolSum::decode(&value)?,
                None => ToolSum { actions: 0, cost: Money::ZERO, tool: action.tool.clone() },
            };
            self.sums.insert(key.clone(), sum);
        }
        if let Some(sum) = self.sums.get_mut(&key) {
            sum.actions += 1;
            sum.cost = sum.cost.plus(action.cost).unwrap_or(sum.cost);
        }
        Ok(())
    }

    /// The rows, and how many actions the tenant has with them.
    pub(super) fn finish(mut self) -> (Vec<Row>, u64) {
        self.rows.extend(self.sums.into_iter().map(|(key, sum)| (key, sum.encode())));
        (self.rows, self.next_ordinal)
    }
}

/// Where the ledger holds an action, and what the actions up to this one come to.
struct ActionRow {
    seq: u64,
    hash: EntryHash,
    totals: Totals,
}

impl ActionRow {
    fn encode(&self) -> Vec<u8> {
        let Totals { cost, flagged } = self.totals;
        let totals = [&cost.nanos().to_be_bytes()[..], &flagged.to_be_bytes()].concat();
        [&self.seq.to_be_bytes()[..], &self.hash.0, &totals].concat()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (seq, rest) = value.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk::<HASH_LEN>()?;
        let (nanos, flagged) = rest.split_first_chunk()?;
        let flagged: [u8; 8] = flagged.try_into().ok()?;
        let cost = Money::from_nanos(u128::from_be_bytes(*nanos));
        let totals = Totals { cost, flagged: u64::from_be_bytes(flagged) };
        Some(Self { seq: u64::from_be_bytes(*seq), hash: EntryHash(*hash), totals })
    }
}

/// What one tool cost.
struct ToolSum {
    actions: u64,
    cost: Money,
    tool: String,
}

impl ToolSum {
    fn encode(&self) -> Vec<u8> {
        let (actions, nanos) = (self.actions.to_be_bytes(), self.cost.nanos().to_be_bytes());
        [&actions[..], &nanos[..], self.tool.as_bytes()].concat()
    }

    fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let parts = value.split_first_chunk().and_then(|(actions, rest)| {
            let (nanos, tool) = rest.split_first_chunk()?;
            Some((u64::from_be_bytes(*actions), u128::from_be_bytes(*nanos), str::from_utf8(tool).ok()?))
        });
        let (actions, nanos, tool) = parts.ok_or_else(|| damaged("a sum is malformed"))?;
        Ok(Self { actions, cost: Money::from_nanos(nanos), tool: tool.to_owned() })
    }
}

fn digest(text: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    digest
}

/// A row kind and the tenant's name.
pub(super) fn tenant_key(row: u8, tenant: &TenantId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + SHORT_NAME_LEN_MAX + 1 + 16 + 16);
    key.push(row);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.resize(1 + SHORT_NAME_LEN_MAX, 0);
    key
}

fn group_key(row: u8, tenant: &TenantId, kind: u8, text: &str) -> Vec<u8> {
    let mut key = tenant_key(row, tenant);
    key.push(kind);
    key.extend_from_slice(&digest(text));
    key
}

fn action_key(tenant: &TenantId, ordinal: u64) -> Vec<u8> {
    let mut key = tenant_key(ACTIONS, tenant);
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

fn name_key(tenant: &TenantId, entry_id: &EntryId) -> Vec<u8> {
    let mut key = tenant_key(NAMES, tenant);
    key.extend_from_slice(&digest(entry_id.as_str()));
    key
}

/// The ordinal at the end of a key of actions or of an index.
pub(super) fn ordinal_in(key: &[u8]) -> Result<u64, StoreError> {
    key.last_chunk().map(|ordinal| u64::from_be_bytes(*ordinal)).ok_or_else(|| damaged("a short key"))
}

pub(super) fn damaged(why: &str) -> StoreError {
    StoreError::Damaged(format!("audit view: {why}"))
}
