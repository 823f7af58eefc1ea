//! The clients of the Model Context Protocol that are known by name: where their configuration is, and in which form.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};

/// The name under which Haldir stands among a client's servers.
pub const NAME: &str = "haldir";

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Claude Desktop
    ClaudeDesktop,
    /// Claude Code, for all projects
    ClaudeCode,
    /// Cursor, for all projects
    Cursor,
    /// Visual Studio Code, the user's profile
    #[value(name = "vscode")]
    VsCode,
    /// Windsurf
    Windsurf,
    /// Gemini CLI
    GeminiCli,
    /// Cline in Visual Studio Code
    Cline,
    /// Zed
    Zed,
}

/// How a client reaches Haldir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It starts a process.
    Stdio,
    /// It talks to the server.
    Http,
}

/// Where the operating system keeps what applications are configured with.
const APPLICATIONS: &str = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };

impl Client {
    /// What people call it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "Claude Desktop",
            Self::ClaudeCode => "Claude Code",
            Self::Cursor => "Cursor",
            Self::VsCode => "Visual Studio Code",
            Self::Windsurf => "Windsurf",
            Self::GeminiCli => "Gemini CLI",
            Self::Cline => "Cline",
            Self::Zed => "Zed",
        }
    }

    /// Its configuration file, below the home directory.
    #[must_use]
    pub fn file(self) -> PathBuf {
        let applications = PathBuf::from(APPLICATIONS);
        match self {
            Self::ClaudeDesktop => applications.join("Claude/claude_desktop_config.json"),
            Self::ClaudeCode => ".claude.json".into(),
            Self::Cursor => ".cursor/mcp.json".into(),
            Self::VsCode => applications.join("Code/User/mcp.json"),
            Self::Windsurf => ".codeium/windsurf/mcp_config.json".into(),
            Self::GeminiCli => ".gemini/settings.json".into(),
            Self::Cline => applications
                .join("Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
            // On every system.
            Self::Zed => ".config/zed/settings.json".into(),
        }
    }

    /// The member of the file in which its servers are.
    #[must_use]
    pub fn servers(self) -> &'static str {
        match self {
            Self::VsCode => "servers",
            Self::Zed => "context_servers",
            _ => "mcpServers",
        }
    }

    /// What stands there for Haldir.
    ///
    /// # Errors
    ///
    /// A sentence, when the client cannot reach it that way.
    pub fn entry(self, way: Way, command: &str, url: &str, key: &str) -> Result<Value, String> {
        if way == Way::Stdio {
            let mut entry = entry_for_process(command, url, key);
            if matches!(self, Self::ClaudeCode | Self::VsCode) {
                entry["type"] = json!("stdio");
            }
            return Ok(entry);
        }
        let endpoint = format!("{url}/mcp");
        let headers = json!({ "Authorization": format!("Bearer {key}") });
        Ok(match self {
            Self::ClaudeDesktop => {
                return Err("Claude Desktop starts processes alone: leave --http away".to_owned());
            }
            Self::ClaudeCode | Self::VsCode => json!({ "type": "http", "url": endpoint, "headers": headers }),
            Self::Cursor | Self::Zed => json!({ "url": endpoint, "headers": headers }),
            Self::Windsurf => json!({ "serverUrl": endpoint, "headers": headers }),
            Self::GeminiCli => json!({ "httpUrl": endpoint, "headers": headers }),
            Self::Cline => json!({ "type": "streamableHttp", "url": endpoint, "headers": headers }),
        })
    }
}

/// The entry that most clients read.
#[must_use]
pub fn entry_for_process(command: &str, url: &str, key: &str) -> Value {
    json!({
        "command": command,
        "args": ["mcp", "serve"],
        "env": { "HALDIR_API_KEY": key, "HALDIR_BASE_URL": url },
    })
}
