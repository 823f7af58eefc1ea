//! Settings of `haldir serve`: flags, environment, TOML file, defaults, in this order.
//!
//! One struct is read from all three sources, so that a setting cannot exist in one and be missing in another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use zeroize::Zeroizing;

/// A setting that is never shown and is overwritten when it is dropped.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Concealed(Zeroizing<String>);

impl Concealed {
    /// The setting.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn is_set(&self) -> bool {
        !self.0.trim().is_empty()
    }
}

impl From<String> for Concealed {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Concealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(concealed)")
    }
}

/// The master keys that are configured.
#[derive(Debug, Clone, Default)]
pub struct MasterKeys {
    /// The one that seals; `None` when the installation keeps keys of its own.
    pub primary: Option<Concealed>,
    /// Those that sealed before, each a list with commas.
    pub previous: Vec<Concealed>,
}

/// What can be set. Every part is optional; see [`Settings`] for what then holds.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "HALDIR_HOST")]
    pub host: Option<String>,
    /// Port to listen on; 0 picks a free one [default: 8000]
    #[arg(long, env = "HALDIR_PORT")]
    pub port: Option<u16>,
    /// Directory for keys and ledger [default: ~/.haldir]
    #[arg(long, env = "HALDIR_DATA_DIR")]
    #[serde(skip)]
    pub data_dir: Option<PathBuf>,
    /// TOML file with settings [default: haldir.toml in the data directory, if it is there]
    #[arg(long, env = "HALDIR_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Do not mint an admin key: the first POST /v1/keys from this machine mints it
    #[arg(long, env = "HALDIR_NO_KEY", num_args = 0..=1, default_missing_value = "true")]
    pub no_key: Option<bool>,
    /// How others reach this server, for the links in notifications [default: http and the address that it listens on]
    #[arg(long, env = "HALDIR_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Further names under which MCP clients reach this server, separated by commas [default: none besides its own and the
    /// public URL's; addresses need not be named]
    #[arg(long, env = "HALDIR_MCP_HOSTS")]
    pub mcp_hosts: Option<String>,
    /// Token that founds tenants on POST /v1/keys without a key
    #[arg(long, env = "HALDIR_BOOTSTRAP_TOKEN", hide_env_values = true)]
    pub bootstrap_token: Option<String>,
    /// Master key of the vault, URL-safe base64 of 32 bytes [default: the first one in master.keys, made on the first start]
    #[arg(long, env = "HALDIR_ENCRYPTION_KEY", hide_env_values = true)]
    pub encryption_key: Option<Concealed>,
    /// Master keys that sealed before, separated by commas: they open, and nothing new is sealed under them
    #[arg(long, env = "HALDIR_ENCRYPTION_KEY_PREVIOUS", hide_env_values = true)]
    pub encryption_key_previous: Option<Concealed>,
    /// One more master key that sealed before
    #[arg(long, env = "HALDIR_ENCRYPTION_KEY_LEGACY", hide_env_values = true)]
    pub encryption_key_legacy: Option<Concealed>,
    /// Threads that serve connections [default: one for each core]
    #[arg(long, env = "HALDIR_WORKERS")]
    pub workers: Option<usize>,
    /// Writes that may wait before callers are turned away [default: 4096]
    #[arg(long, env = "HALDIR_QUEUE_LEN")]
    pub queue_len: Option<usize>,
    /// Writes in one commit at most [default: 512]
    #[arg(long, env = "HALDIR_BATCH_LEN_MAX")]
    pub batch_len_max: Option<usize>,
    /// How long running requests may take when the server is told to stop [default: 30s]
    #[arg(long, env = "HALDIR_SHUTDOWN_TIMEOUT", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub shutdown_timeout: Option<Duration>,
    /// How often metered calls are recorded [default: 10s]
    #[arg(long, env = "HALDIR_METER_INTERVAL", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub meter_interval: Option<Duration>,
    /// How long after a scrub of all streams the next one begins [default: 1h]
    #[arg(long, env = "HALDIR_SCRUB_INTERVAL", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub scrub_interval: Option<Duration>,
    /// How often a checkpoint of every stream that has grown is signed [default: 1h]
    #[arg(long, env = "HALDIR_CHECKPOINT_INTERVAL", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub checkpoint_interval: Option<Duration>,
    /// Send evidence packs when their schedules are due, or not [default: no]
    #[arg(long, env = "HALDIR_COMPLIANCE_SCHEDULER", num_args = 0..=1, default_missing_value = "true", value_parser = parse_switch)]
    pub compliance_scheduler: Option<bool>,
    /// How often schedules are looked at [default: 1h]
    #[arg(long, env = "HALDIR_COMPLIANCE_INTERVAL", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub compliance_interval: Option<Duration>,
    /// Mail server that takes evidence packs [default: none]
    #[arg(long, env = "HALDIR_SMTP_HOST")]
    pub smtp_host: Option<String>,
    /// Its port; 465 speaks TLS from the first byte [default: 587]
    #[arg(long, env = "HALDIR_SMTP_PORT")]
    pub smtp_port: Option<u16>,
    /// Who logs in there [default: nobody]
    #[arg(long, env = "HALDIR_SMTP_USER")]
    pub smtp_user: Option<String>,
    /// With which password
    #[arg(long, env = "HALDIR_SMTP_PASSWORD", hide_env_values = true)]
    pub smtp_password: Option<String>,
    /// Who letters are from; haldir at localhost unless given
    #[arg(long, env = "HALDIR_SMTP_FROM")]
    pub smtp_from: Option<String>,
    /// Whether letters go out only encrypted [default: yes]
    #[arg(long, env = "HALDIR_SMTP_USE_TLS", value_parser = parse_switch)]
    pub smtp_use_tls: Option<bool>,
    /// Entries after which a snapshot of a stream is taken [default: 16384]
    #[arg(long, env = "HALDIR_SNAPSHOT_EVERY")]
    pub snapshot_every: Option<u64>,
    /// Bytes that are left free on the disk: writes are refused before [default: 67108864]
    #[arg(long, env = "HALDIR_DISK_RESERVE")]
    pub disk_reserve: Option<u64>,
    /// Whether webhooks and upstreams may lead to this machine and to private networks, or not [default: not]
    #[arg(long, env = "HALDIR_ALLOW_PRIVATE_OUTBOUND", num_args = 0..=1, default_missing_value = "true", value_parser = parse_permission)]
    pub allow_private_outbound: Option<bool>,
    /// Pauses after failed deliveries to webhooks, separated by commas; after the last they are given up
    /// [default: 1s,4s,30s,2m,10m,30m,1h,2h,4h,8h]
    #[arg(long, env = "HALDIR_WEBHOOK_PAUSES")]
    pub webhook_pauses: Option<String>,
    /// Command that may be started as an upstream: a path, or a name that is looked for in the path; may be repeated. Whoever
    /// may register upstreams gives it its arguments [default: none]
    #[arg(long, env = "HALDIR_UPSTREAM_COMMAND", value_delimiter = ',')]
    pub upstream_command: Option<Vec<String>>,
    /// How long a call to an upstream may take without any sign of progress [default: 30s]
    #[arg(long, env = "HALDIR_UPSTREAM_TIMEOUT", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub upstream_timeout: Option<Duration>,
    /// How long a call to an upstream may take with progress [default: 10m]
    #[arg(long, env = "HALDIR_UPSTREAM_TIMEOUT_MAX", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub upstream_timeout_max: Option<Duration>,
    /// Bytes of one message of an upstream [default: 16777216]
    #[arg(long, env = "HALDIR_UPSTREAM_ANSWER_LEN_MAX")]
    pub upstream_answer_len_max: Option<usize>,
    /// How often upstreams are asked for their tools [default: 1m]
    #[arg(long, env = "HALDIR_UPSTREAM_INTERVAL", value_parser = humantime::parse_duration)]
    #[serde(default, with = "humantime_serde")]
    pub upstream_interval: Option<Duration>,
    /// Commands that may run as upstreams at once [default: 64]
    #[arg(long, env = "HALDIR_UPSTREAM_CHILDREN")]
    pub upstream_children: Option<usize>,
    /// Requests of one key in an hour [default: no limit]
    #[arg(long, env = "HALDIR_REQUESTS_PER_HOUR")]
    pub requests_per_hour: Option<u64>,
    /// Requests of one tenant in a month [default: no limit]
    #[arg(long, env = "HALDIR_REQUESTS_PER_MONTH")]
    pub requests_per_month: Option<u64>,
    /// Agents of one tenant with live sessions at once [default: no limit]
    #[arg(long, env = "HALDIR_AGENTS")]
    pub agents: Option<u64>,
    /// What to log: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, env = "HALDIR_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Log JSON lines, or not [default: JSON unless standard error is a terminal]
    #[arg(long, env = "HALDIR_LOG_JSON", num_args = 0..=1, default_missing_value = "true", value_parser = parse_switch)]
    pub log_json: Option<bool>,
}

/// The operator's mail server.
#[derive(Clone)]
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in, and with what; nobody without.
    pub login: Option<(String, String)>,
    /// Who letters are from.
    pub from: String,
    /// Whether letters go out only encrypted.
    pub uses_tls: bool,
}

impl fmt::Debug for MailServer {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.login.as_ref().map(|(user, _)| user);
        let Self { host, port, from, uses_tls, .. } = self;
        write!(f, "MailServer({host}:{port}, user {user:?}, from {from}, TLS {uses_tls})")
    }
}

/// How far upstreams are trusted.
#[derive(Debug, Clone)]
pub struct UpstreamTrust {
    /// Commands that may be started.
    pub commands: Vec<String>,
    /// How long a call may take without any sign of progress.
    pub timeout: Duration,
    /// How long a call may take with progress.
    pub timeout_max: Duration,
    /// How often they are asked for their tools.
    pub interval: Duration,
    /// Bytes of one message.
    pub answer_len_max: usize,
    /// Commands that may run at once.
    pub child_count_max: usize,
}

/// How often what needs no hurry is done.
const HOUR: Duration = Duration::from_secs(3600);

/// What holds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// Directory for keys and ledger.
    pub data_dir: PathBuf,
    /// Whether no admin key is minted.
    pub no_key: bool,
    /// How others reach this server; `None` is by the address that it listens on.
    pub public_url: Option<String>,
    /// Further names under which MCP clients reach this server.
    pub mcp_hosts: Vec<String>,
    /// Token that founds tenants.
    pub bootstrap_token: Option<String>,
    /// Master keys of the vault.
    pub master_keys: MasterKeys,
    /// Threads that serve connections.
    pub workers: usize,
    /// Writes that may wait.
    pub queue_len: usize,
    /// Writes in one commit at most.
    pub batch_len_max: usize,
    /// How long running requests may take when the server is told to stop.
    pub shutdown_timeout: Duration,
    /// How often metered calls are recorded.
    pub meter_interval: Duration,
    /// How long after a scrub the next one begins.
    pub scrub_interval: Duration,
    /// How often checkpoints are signed.
    pub checkpoint_interval: Duration,
    /// How often schedules of evidence packs are looked at; `None` is never.
    pub compliance_interval: Option<Duration>,
    /// The mail server that takes evidence packs.
    pub mail: Option<MailServer>,
    /// Entries after which a snapshot is taken.
    pub snapshot_every: u64,
    /// Bytes that are left free on the disk.
    pub disk_reserve: u64,
    /// Whether webhooks and upstreams may lead to this machine and to private networks.
    pub allow_private_outbound: bool,
    /// How far upstreams are trusted.
    pub upstreams: UpstreamTrust,
    /// Pauses after failed deliveries, if they are set.
    pub webhook_pauses: Option<Vec<Duration>>,
    /// Requests of one key in an hour.
    pub requests_per_hour: Option<u64>,
    /// Requests of one tenant in a month.
    pub requests_per_month: Option<u64>,
    /// Agents of one tenant with live sessions at once.
    pub agents: Option<u64>,
    /// What to log.
    pub log_level: String,
    /// Whether logs are JSON lines.
    pub log_json: Option<bool>,
}

impl Sources {
    /// Adds the file's settings and the defaults to those of flags and environment.
    ///
    /// # Errors
    ///
    /// A sentence, when the file cannot be read or a setting cannot hold.
    pub fn resolve(self) -> Result<Settings, String> {
        let data_dir = data_dir(self.data_dir.clone())?;
        let file = read_file(self.config.as_deref(), &data_dir)?;
        let compliance_interval = self.compliance_interval.or(file.compliance_interval).unwrap_or(HOUR);
        let runs_schedules = self.compliance_scheduler.or(file.compliance_scheduler).unwrap_or(false);
        let mail = mail_settings(&self, &file);
        let upstreams = upstream_trust(&self, &file);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let settings = Settings {
            host: self.host.or(file.host).unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: self.port.or(file.port).unwrap_or(8000),
            data_dir,
            no_key: self.no_key.or(file.no_key).unwrap_or(false),
            public_url: self
                .public_url
                .or(file.public_url)
                .map(|url| url.trim_end_matches('/').to_owned())
                .filter(|url| !url.is_empty()),
            mcp_hosts: self.mcp_hosts.or(file.mcp_hosts).map(|names| names_in(&names)).unwrap_or_default(),
            bootstrap_token: self.bootstrap_token.or(file.bootstrap_token).filter(|token| !token.is_empty()),
            master_keys: MasterKeys {
                primary: self.encryption_key.or(file.encryption_key).filter(Concealed::is_set),
                previous: [
                    self.encryption_key_previous.or(file.encryption_key_previous),
                    self.encryption_key_legacy.or(file.encryption_key_legacy),
                ]
                .into_iter()
                .flatten()
                .filter(Concealed::is_set)
                .collect(),
            },
            workers: self.workers.or(file.workers).unwrap_or(cores),
            queue_len: self.queue_len.or(file.queue_len).unwrap_or(4096),
            batch_len_max: self.batch_len_max.or(file.batch_len_max).unwrap_or(512),
            shutdown_timeout: self
                .shutdown_timeout
                .or(file.shutdown_timeout)
                .unwrap_or(Duration::from_secs(30)),
            meter_interval: self.meter_interval.or(file.meter_interval).unwrap_or(Duration::from_secs(10)),
            scrub_interval: self.scrub_interval.or(file.scrub_interval).unwrap_or(HOUR),
            checkpoint_interval: self.checkpoint_interval.or(file.checkpoint_interval).unwrap_or(HOUR),
            compliance_interval: runs_schedules.then_some(compliance_interval),
            mail,
            snapshot_every: self.snapshot_every.or(file.snapshot_every).unwrap_or(16_384),
            disk_reserve: self.disk_reserve.or(file.disk_reserve).unwrap_or(64 << 20),
            allow_private_outbound: self
                .allow_private_outbound
                .or_else(older_permission)
                .or(file.allow_private_outbound)
                .unwrap_or(false),
            upstreams,
            webhook_pauses: self
                .webhook_pauses
                .or(file.webhook_pauses)
                .filter(|pauses| !pauses.trim().is_empty())
                .map(|pauses| parse_pauses(&pauses))
                .transpose()?,
            requests_per_hour: self.requests_per_hour.or(file.requests_per_hour),
            requests_per_month: self.requests_per_month.or(file.requests_per_month),
            agents: self.agents.or(file.agents),
            log_level: self
                .log_level
                .or(file.log_level)
                .unwrap_or_else(|| "info,actix_server=warn".to_owned()),
            log_json: self.log_json.or(file.log_json),
        };
        let at_least_one = [
            ("workers", settings.workers),
            ("queue-len", settings.queue_len),
            ("batch-len-max", settings.batch_len_max),
        ];
        match at_least_one.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} must be at least 1")),
            None if settings.meter_interval.is_zero() => Err("meter-interval must not be zero".to_owned()),
            None if settings.scrub_interval.is_zero() => Err("scrub-interval must not be zero".to_owned()),
            None if settings.checkpoint_interval.is_zero() => {
                Err("checkpoint-interval must not be zero".to_owned())
            }
            None if compliance_interval.is_zero() => Err("compliance-interval must not be zero".to_owned()),
            None if settings.upstreams.timeout.is_zero() => {
                Err("upstream-timeout must not be zero".to_owned())
            }
            None if settings.upstreams.interval.is_zero() => {
                Err("upstream-interval must not be zero".to_owned())
            }
            None if settings.snapshot_every == 0 => Err("snapshot-every must be at least 1".to_owned()),
            None => Ok(settings),
        }
    }
}

/// The mail server, if one is named.
fn mail_settings(given: &Sources, file: &Sources) -> Option<MailServer> {
    let text = |given: &Option<String>, file: &Option<String>| {
        given.clone().or_else(|| file.clone()).filter(|text| !text.is_empty())
    };
    let password = text(&given.smtp_password, &file.smtp_password).unwrap_or_default();
    Some(MailServer {
        host: text(&given.smtp_host, &file.smtp_host)?,
        port: given.smtp_port.or(file.smtp_port).unwrap_or(587),
        login: text(&given.smtp_user, &file.smtp_user).map(|user| (user, password)),
        from: text(&given.smtp_from, &file.smtp_from).unwrap_or_else(|| "haldir@localhost".to_owned()),
        uses_tls: given.smtp_use_tls.or(file.smtp_use_tls).unwrap_or(true),
    })
}

fn upstream_trust(given: &Sources, file: &Sources) -> UpstreamTrust {
    let commands = given.upstream_command.clone().or_else(|| file.upstream_command.clone());
    let seconds = Duration::from_secs;
    UpstreamTrust {
        commands: commands.unwrap_or_default().into_iter().filter(|command| !command.is_empty()).collect(),
        timeout: given.upstream_timeout.or(file.upstream_timeout).unwrap_or(seconds(30)),
        timeout_max: given.upstream_timeout_max.or(file.upstream_timeout_max).unwrap_or(seconds(600)),
        interval: given.upstream_interval.or(file.upstream_interval).unwrap_or(seconds(60)),
        answer_len_max: given.upstream_answer_len_max.or(file.upstream_answer_len_max).unwrap_or(16 << 20),
        child_count_max: given.upstream_children.or(file.upstream_children).unwrap_or(64),
    }
}

/// The data directory: as given, as `HALDIR_DATA_DIR` says, or `.haldir` in the home directory.
///
/// # Errors
///
/// A sentence, when there is no home directory either.
pub fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, String> {
    let named = || std::env::var_os("HALDIR_DATA_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let default = || std::env::home_dir().map(|home| home.join(".haldir"));
    given
        .or_else(named)
        .or_else(default)
        .ok_or_else(|| "no home directory: name one with --data-dir".to_owned())
}

fn read_file(named: Option<&Path>, data_dir: &Path) -> Result<Sources, String> {
    let path = named.map_or_else(|| data_dir.join("haldir.toml"), Path::to_path_buf);
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Sources::default())
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The same under the name that it had before.
fn older_permission() -> Option<bool> {
    parse_permission(&std::env::var("HALDIR_ALLOW_PRIVATE_WEBHOOKS").ok()?).ok()
}

/// A switch that is off when it is set to nothing.
fn parse_permission(text: &str) -> Result<bool, String> {
    if text.trim().is_empty() { Ok(false) } else { parse_switch(text.trim()) }
}

/// The items of a list with commas.
fn names_in(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn parse_pauses(text: &str) -> Result<Vec<Duration>, String> {
    let parse = |pause: &str| {
        humantime::parse_duration(pause.trim()).map_err(|error| format!("webhook-pauses: {pause}: {error}"))
    };
    text.split(',').map(parse).collect()
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources_in(dir: &Path) -> Sources {
        Sources { data_dir: Some(dir.to_path_buf()), ..Sources::default() }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = "port = 9\nshutdown-timeout = \"2m\"\nagents = 3\n";
        std::fs::write(dir.path().join("haldir.toml"), file).unwrap();
        let settings = Sources { port: Some(7), ..sources_in(dir.path()) }.resolve().unwrap();
        assert_eq!(settings.port, 7);
        assert_eq!(settings.shutdown_timeout, Duration::from_secs(120));
        assert_eq!(settings.agents, Some(3));
        assert_eq!(settings.host, "127.0.0.1");
    }

    #[test]
    fn schedules_run_and_letters_go_out_only_where_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let settings = sources_in(dir.path()).resolve().unwrap();
        assert!(settings.compliance_interval.is_none() && settings.mail.is_none());
        let file =
            "compliance-scheduler = true\nsmtp-host = \"mail\"\nsmtp-user = \"u\"\nsmtp-password = \"p\"\n";
        std::fs::write(dir.path().join("haldir.toml"), file).unwrap();
        let settings = Sources { smtp_port: Some(25), ..sources_in(dir.path()) }.resolve().unwrap();
        assert_eq!(settings.compliance_interval, Some(HOUR));
        let mail = settings.mail.unwrap();
        assert_eq!((mail.host.as_str(), mail.port, mail.uses_tls), ("mail", 25, true));
        assert_eq!(mail.login, Some(("u".to_owned(), "p".to_owned())));
        assert_eq!(mail.from, "haldir@localhost");
        assert!(!format!("{mail:?}").contains("\"p\""), "a password is not shown");
    }

    #[test]
    fn mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("haldir.toml"), "prot = 9\n").unwrap();
        assert!(sources_in(dir.path()).resolve().unwrap_err().contains("prot"));
        let missing = Sources { config: Some(dir.path().join("other.toml")), ..sources_in(dir.path()) };
        assert!(missing.resolve().unwrap_err().contains("other.toml"));
        std::fs::remove_file(dir.path().join("haldir.toml")).unwrap();
        let zero = Sources { queue_len: Some(0), ..sources_in(dir.path()) };
        assert_eq!(zero.resolve().unwrap_err(), "queue-len must be at least 1");
    }
}
