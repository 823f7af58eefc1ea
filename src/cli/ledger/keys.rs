//! `haldir ledger keys`, `rotate-key` and `root`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::custody;
use crate::cli::installation::{Installation, read_public_key, read_signer, write_key_pair};
use crate::config;
use crate::format::certificate::KeyCertificate;
use crate::ledger::random::OsRandom;

/// Whose keys.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// The data directory [default: ~/.haldir]
    #[arg(long, env = "HALDIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whose key is replaced.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The data directory [default: ~/.haldir]
    #[arg(long, env = "HALDIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

/// What to do with root keys.
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Make a root key pair, on a machine that is not the server
    New {
        /// The folder for root.key and root.pub
        #[arg(long)]
        out: PathBuf,
    },
    /// Certify a signing key with a root key, and print the certificate
    Certify {
        /// The root's private key, a PEM file
        #[arg(long)]
        root: PathBuf,
        /// The signing key: a PEM file, such as signing.pub, or 64 hex digits
        #[arg(long = "key", value_name = "PUBLIC KEY")]
        subject: String,
    },
    /// Add a certificate to an installation, which hands it out from its next start on
    Add {
        /// The data directory [default: ~/.haldir]
        #[arg(long, env = "HALDIR_DATA_DIR")]
        data_dir: Option<PathBuf>,
        /// The line that `certify` printed
        certificate: String,
    },
}

/// Lists keys and certificates.
pub(super) fn list(arguments: &KeysArgs) -> Result<(), String> {
    let dir = config::data_dir(arguments.data_dir.clone())?;
    let keys = Installation::known_keys(&dir)?;
    let certificates = Installation::certificates_in(&dir)?;
    if keys.is_empty() {
        return Err(format!("{} holds no signing.pub", dir.display()));
    }
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let roots_of = |key| -> Vec<String> {
        let of_key = certificates.iter().filter(|certificate| certificate.subject == key);
        of_key.map(|certificate| certificate.root.id().to_string()).collect()
    };
    if arguments.json {
        let key = |(index, key): (usize, &crate::format::chain::PublicKey)| -> Value {
            json!({
                "key_id": key.id().to_string(), "public_key": hex(&key.to_bytes()),
                "signs": index + 1 == keys.len(), "certified_by": roots_of(*key),
            })
        };
        anstream::println!("{}", json!({ "keys": keys.iter().enumerate().map(key).collect::<Vec<_>>() }));
        return Ok(());
    }
    for (index, key) in keys.iter().enumerate() {
        let role = if index + 1 == keys.len() { "signs now" } else { "signed before" };
        anstream::println!("{}  {}  {role}", key.id(), hex(&key.to_bytes()));
        for root in roots_of(*key) {
            anstream::println!("                  certified by root {root}");
        }
    }
    Ok(())
}

/// Replaces the signing key.
pub(super) fn rotate(arguments: &RotateArgs) -> Result<(), String> {
    let dir = config::data_dir(arguments.data_dir.clone())?;
    let installation = Installation::open(&dir)?;
    let before = installation.existing_signer()?.public_key();
    let after = custody::rotate(&installation)?;
    anstream::println!("every stream was handed from key {} to key {}", before.id(), after.id());
    anstream::println!(
        "  give {}/signing.pub to auditors; streams that began before need the key before too",
        dir.display()
    );
    anstream::println!("  the old private key is gone; it could sign nothing more that anybody would accept");
    Ok(())
}

/// Makes and uses root keys.
pub(super) fn root(command: &RootCommand) -> Result<(), String> {
    match command {
        RootCommand::New { out } => {
            let id = write_key_pair(out, "root", &OsRandom::default())?;
            anstream::println!(
                "root key {id}: keep {}/root.key offline, give root.pub to auditors",
                out.display()
            );
        }
        RootCommand::Certify { root, subject } => {
            let certificate = KeyCertificate::sign(&read_signer(root)?, read_public_key(subject)?);
            anstream::println!("{}", certificate.line());
        }
        RootCommand::Add { data_dir, certificate } => {
            let dir = config::data_dir(data_dir.clone())?;
            add_certificate(&dir, certificate)?;
            anstream::println!("added; the server hands it out from its next start on");
        }
    }
    Ok(())
}

fn add_certificate(dir: &Path, line: &str) -> Result<(), String> {
    let certificate = KeyCertificate::parse(line.trim()).filter(KeyCertificate::is_signed);
    let certificate = certificate.ok_or("this is not a certificate whose signature is right")?;
    if !Installation::known_keys(dir)?.contains(&certificate.subject) {
        return Err(format!("{} never signed with key {}", dir.display(), certificate.subject.id()));
    }
    let mut certificates = Installation::certificates_in(dir)?;
    if !certificates.contains(&certificate) {
        certificates.push(certificate);
    }
    let lines: String = certificates.iter().map(|certificate| certificate.line() + "\n").collect();
    Installation::write_in(dir, "certificates", lines.as_bytes())
}
