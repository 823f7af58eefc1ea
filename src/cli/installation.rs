//! The data directory: keys, ledger, views, and the lock that keeps other processes out.
//!
//! | File | Content |
//! |---|---|
//! | `signing.key` | Ed25519 private key, PKCS#8 PEM; signs every entry |
//! | `signing.pub` | its public key, SPKI PEM; give this one to auditors |
//! | `signing.next` | the private key that is to sign next, while a rotation is under way |
//! | `signing.former` | public keys that signed before, in hex, oldest first |
//! | `certificates` | root keys' certificates of signing keys, one a line |
//! | `retry.secret` | 32 bytes in hex; idempotency keys are digested under it |
//! | `master.keys` | master keys of the vault, the one that seals first; when `HALDIR_ENCRYPTION_KEY` is set, they only open |
//! | `vault/` | sealed values, a file each |
//! | `config.json` | the CLI's API key and base URL |
//! | `ledger/`, `views/`, `snapshots/` | the store; views and snapshots can be deleted |
//! | `lock` | held while a process uses the directory |
//!
//! Directories are 0700, files 0600.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
};
use rustix::fs::Mode;
use zeroize::Zeroizing;

use crate::config::MasterKeys;
use crate::format::certificate::KeyCertificate;
use crate::format::chain::{KeyId, PublicKey, Signer};
use crate::ledger::random::Random;
use crate::operations::retries::RetrySecret;
use crate::store::cabinet::CabinetFiles;
use crate::vault::Vault;
use crate::vault::ring::{KeyRing, MasterKey};
use crate::vault::ring_file::{RingFile, RingSource};

/// The private key that is to sign next, while a rotation is under way.
const NEXT_KEY: &str = "signing.next";

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct Installation {
    dir: PathBuf,
    /// Unlocked by the operating system when the process ends, however it ends.
    _lock: File,
}

impl Installation {
    /// Takes a directory, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// A sentence, when another process uses it or it cannot be made.
    pub fn open_or_create(dir: &Path) -> Result<Self, String> {
        if !dir.exists() {
            create_durably(dir).map_err(|error| at(dir, &error))?;
        }
        Self::open(dir)
    }

    /// Takes a directory that exists.
    ///
    /// # Errors
    ///
    /// A sentence, when there is none or another process uses it.
    pub fn open(dir: &Path) -> Result<Self, String> {
        // The store makes files of its own, with the permissions that the process gives by default.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|error| at(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(format!(
                "another haldir process uses {}; stop it first, or name another directory with --data-dir",
                dir.display()
            )),
            Err(TryLockError::Error(error)) => Err(at(&path, &error)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the ledger is.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be made.
    pub fn ledger_dir(&self) -> Result<PathBuf, String> {
        self.check_ledger_is_there()?;
        self.private_dir("ledger")
    }

    /// An installation whose ledger is gone must not begin another one under the same key. Views are made after the ledger is
    /// durable, and what a repair leaves behind was a ledger.
    fn check_ledger_is_there(&self) -> Result<(), String> {
        if self.has_ledger() {
            return Ok(());
        }
        let items = fs::read_dir(&self.dir).map_err(|error| at(&self.dir, &error))?;
        let mut names = items.filter_map(|item| item.ok()?.file_name().into_string().ok());
        let is_trace = |name: &String| {
            name.starts_with("ledger.") || (name == "views" && self.dir.join("views").join("db").exists())
        };
        match names.find(is_trace) {
            None => Ok(()),
            Some(trace) => Err(format!(
                "{dir}/ledger is gone, although {trace} is there: put the ledger back, or rebuild it with `haldir ledger repair` or \
                 `restore`; to begin anew, name another directory",
                dir = self.dir.display()
            )),
        }
    }

    /// Where the views are.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be made.
    pub fn views_dir(&self) -> Result<PathBuf, String> {
        self.private_dir("views")
    }

    /// Where snapshots are.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be made.
    pub fn snapshots_dir(&self) -> Result<PathBuf, String> {
        self.private_dir("snapshots")
    }

    /// Sealed values, without the keys to them.
    ///
    /// # Errors
    ///
    /// A sentence, when the directory cannot be made or read.
    pub fn cabinet(&self) -> Result<CabinetFiles, String> {
        let dir = self.private_dir("vault")?;
        CabinetFiles::open(&dir).map_err(|error| at(&dir, &error))
    }

    /// Sealed values and the keys to them: those that are configured, or those that the installation made for itself.
    ///
    /// # Errors
    ///
    /// A sentence, when a key is none or a file cannot be read or made.
    pub fn vault(&self, keys: &MasterKeys, random: Arc<dyn Random>) -> Result<Vault, String> {
        let cabinet = self.cabinet()?;
        let file = RingFile::of(&self.dir);
        let mut previous = Vec::new();
        for text in keys.previous.iter().flat_map(|keys| keys.reveal().split(',')) {
            if !text.trim().is_empty() {
                previous
                    .push(MasterKey::parse(text).map_err(|why| format!("a previous encryption key: {why}"))?);
            }
        }
        let (ring, source) = match &keys.primary {
            Some(text) => {
                let primary =
                    MasterKey::parse(text.reveal()).map_err(|why| format!("encryption-key: {why}"))?;
                // What was sealed before a key was configured opens with the keys that sealed it.
                if let Some(own) = file.load()? {
                    previous.extend(std::iter::once(own.primary()).chain(own.retired()).cloned());
                }
                (KeyRing::new(primary, previous)?, RingSource::Configured)
            }
            None if previous.is_empty() => (file.load_or_create(&*random)?, RingSource::File(file)),
            None => {
                return Err("there are previous encryption keys and no encryption-key: set both".to_owned());
            }
        };
        Ok(Vault::new(Arc::new(cabinet), ring, source, random))
    }

    fn private_dir(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        if !path.exists() {
            DirBuilder::new().mode(0o700).create(&path).map_err(|error| at(&path, &error))?;
        }
        Ok(path)
    }

    /// The key that signs entries; made on the first start.
    ///
    /// # Errors
    ///
    /// A sentence, when the key is unreadable, or missing although there is a ledger.
    pub fn signer(&self, random: &dyn Random) -> Result<Signer, String> {
        let path = self.dir.join("signing.key");
        let key = if path.exists() {
            let pem = fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| at(&path, &error))?;
            SigningKey::from_pkcs8_pem(&pem).map_err(|error| at(&path, &error))?
        } else if self.dir.join("ledger").join("db").exists() {
            return Err(format!(
                "{} is missing although there is a ledger; restore it from a backup: entries signed by a new key would \
                 not be trusted",
                path.display()
            ));
        } else {
            let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random.bytes());
            self.write_private("signing.key", private_pem(&secret)?.as_bytes())?;
            SigningKey::from_bytes(&secret)
        };
        let public_path = self.dir.join("signing.pub");
        if !public_path.exists() {
            self.write_private("signing.pub", public_pem(PublicKey::new(key.verifying_key()))?.as_bytes())?;
        }
        Ok(Signer::new(key))
    }

    /// The key that signs entries, which must be there.
    ///
    /// # Errors
    ///
    /// A sentence, when it is missing or unreadable.
    pub fn existing_signer(&self) -> Result<Signer, String> {
        read_signer(&self.dir.join("signing.key"))
    }

    /// The public keys of a data directory: those that signed before, oldest first, and the one that signs now. None when there is
    /// no `signing.pub`.
    ///
    /// # Errors
    ///
    /// A sentence, when a file is there and unreadable.
    pub fn known_keys(dir: &Path) -> Result<Vec<PublicKey>, String> {
        let mut keys = former_keys(dir)?;
        let current = dir.join("signing.pub");
        if current.exists() {
            keys.push(read_public_key(&current.to_string_lossy())?);
        }
        Ok(keys)
    }

    /// Keys that signed before the one that signs now, oldest first.
    ///
    /// # Errors
    ///
    /// A sentence, when the file is there and unreadable.
    pub fn former_keys(&self) -> Result<Vec<PublicKey>, String> {
        former_keys(&self.dir)
    }

    /// Root keys' certificates of signing keys.
    ///
    /// # Errors
    ///
    /// A sentence, when the file is there and a line of it is no certificate.
    pub fn certificates(&self) -> Result<Vec<KeyCertificate>, String> {
        Self::certificates_in(&self.dir)
    }

    /// The same of a directory that this process does not hold.
    ///
    /// # Errors
    ///
    /// A sentence, when the file is there and a line of it is no certificate.
    pub fn certificates_in(dir: &Path) -> Result<Vec<KeyCertificate>, String> {
        let parse = |line: &str| KeyCertificate::parse(line).filter(KeyCertificate::is_signed);
        read_lines(&dir.join("certificates"), parse, "a certificate whose signature is right")
    }

    /// Whether anything was ever written to the ledger.
    #[must_use]
    pub fn has_ledger(&self) -> bool {
        self.dir.join("ledger").join("db").exists()
    }

    /// Makes the key that is to sign next, beside the one that signs.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be written.
    pub fn write_next_signer(&self, random: &dyn Random) -> Result<(), String> {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random.bytes());
        self.write_private(NEXT_KEY, private_pem(&secret)?.as_bytes())
    }

    /// The key that is to sign next, if a rotation was begun.
    ///
    /// # Errors
    ///
    /// A sentence, when it is unreadable.
    pub fn next_signer(&self) -> Result<Option<Signer>, String> {
        let path = self.dir.join(NEXT_KEY);
        if path.exists() { read_signer(&path).map(Some) } else { Ok(None) }
    }

    /// Puts the next key in the place of the current one. Can be done again if it was cut short.
    ///
    /// # Errors
    ///
    /// A sentence, when a file cannot be written.
    pub fn promote_next_signer(&self, current: PublicKey) -> Result<(), String> {
        let next_path = self.dir.join(NEXT_KEY);
        let pem =
            fs::read_to_string(&next_path).map(Zeroizing::new).map_err(|error| at(&next_path, &error))?;
        let next = read_signer(&next_path)?.public_key();
        if current != next {
            let mut former = self.former_keys()?;
            if !former.contains(&current) {
                former.push(current);
            }
            let lines: String = former.iter().map(|key| HEXLOWER.encode(&key.to_bytes()) + "\n").collect();
            self.write_private("signing.former", lines.as_bytes())?;
            self.write_private("signing.key", pem.as_bytes())?;
        }
        self.write_private("signing.pub", public_pem(next)?.as_bytes())?;
        fs::remove_file(&next_path).map_err(|error| at(&next_path, &error))
    }

    /// The secret under which idempotency keys are digested; made on the first start.
    ///
    /// # Errors
    ///
    /// A sentence, when it is unreadable.
    pub fn retry_secret(&self, random: &dyn Random) -> Result<RetrySecret, String> {
        let path = self.dir.join("retry.secret");
        if !path.exists() {
            let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random.bytes());
            let text = Zeroizing::new(HEXLOWER.encode(&*secret) + "\n");
            self.write_private("retry.secret", text.as_bytes())?;
        }
        let text = fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| at(&path, &error))?;
        let bytes = HEXLOWER.decode(text.trim().as_bytes()).map(Zeroizing::new);
        let secret = bytes.ok().and_then(|bytes| bytes.as_slice().try_into().ok());
        secret.map(RetrySecret::new).ok_or_else(|| format!("{}: expected 64 hex digits", path.display()))
    }

    /// Writes a file that only its owner may read, durably and all at once.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be written.
    pub fn write_private(&self, name: &str, content: &[u8]) -> Result<(), String> {
        Self::write_in(&self.dir, name, content)
    }

    /// The same in a directory that this process does not hold.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be written.
    pub fn write_in(dir: &Path, name: &str, content: &[u8]) -> Result<(), String> {
        let path = dir.join(name);
        let temporary = dir.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| at(&path, &error))
    }
}

/// Reads a private key: a PKCS#8 PEM file.
///
/// # Errors
///
/// A sentence, when it is missing or is none.
pub fn read_signer(path: &Path) -> Result<Signer, String> {
    let pem = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| at(path, &error))?;
    SigningKey::from_pkcs8_pem(&pem).map(Signer::new).map_err(|error| at(path, &error))
}

/// Makes a key pair, `<name>.key` and `<name>.pub`, in a folder, and says its id.
///
/// # Errors
///
/// A sentence, when there is one already or it cannot be written.
pub fn write_key_pair(dir: &Path, name: &str, random: &dyn Random) -> Result<KeyId, String> {
    fs::create_dir_all(dir).map_err(|error| at(dir, &error))?;
    let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
    if dir.join(&private).exists() {
        return Err(format!("{} is there already", dir.join(private).display()));
    }
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(random.bytes());
    let key = PublicKey::new(SigningKey::from_bytes(&secret).verifying_key());
    Installation::write_in(dir, &private, private_pem(&secret)?.as_bytes())?;
    Installation::write_in(dir, &public, public_pem(key)?.as_bytes())?;
    Ok(key.id())
}

fn private_pem(secret: &[u8; 32]) -> Result<Zeroizing<String>, String> {
    // Without the public key: older tools do not read the form that carries both.
    let pair = KeypairBytes { secret_key: *secret, public_key: None };
    pair.to_pkcs8_pem(LineEnding::LF).map_err(|error| format!("a private key cannot be written: {error}"))
}

fn public_pem(key: PublicKey) -> Result<String, String> {
    let unwritable = |error: &dyn std::fmt::Display| format!("a public key cannot be written: {error}");
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.to_bytes()).map_err(|error| unwritable(&error))?;
    key.to_public_key_pem(LineEnding::LF).map_err(|error| unwritable(&error))
}

fn former_keys(dir: &Path) -> Result<Vec<PublicKey>, String> {
    read_lines(&dir.join("signing.former"), parse_hex_key, "a public key in hex")
}

/// The lines of a file, or nothing if there is none.
fn read_lines<T>(path: &Path, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Result<Vec<T>, String> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|error| at(path, &error))?,
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| parse(line).ok_or_else(|| format!("{}: expected {expected}", path.display()))).collect()
}

fn parse_hex_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?)
}

/// Reads a public key: an SPKI PEM file, or 64 hex digits.
///
/// # Errors
///
/// A sentence, when it is neither.
pub fn read_public_key(text: &str) -> Result<PublicKey, String> {
    if let Ok(bytes) = HEXLOWER.decode(text.trim().to_ascii_lowercase().as_bytes())
        && let Ok(bytes) = <[u8; 32]>::try_from(bytes.as_slice())
    {
        return PublicKey::from_bytes(&bytes).ok_or_else(|| format!("{text} is not an Ed25519 public key"));
    }
    let path = Path::new(text);
    let pem = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    let key = ed25519_dalek::VerifyingKey::from_public_key_pem(&pem).map_err(|error| at(path, &error))?;
    Ok(PublicKey::new(key))
}

/// Makes a directory and those that it is in. A name is only there after a power cut if the directory that holds it was
/// synchronised: without that, the ledger and its key could go with the name of the directory that they are in.
fn create_durably(dir: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in missing {
        let parent = made.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
