//! One binary; modules by the question they ask.

mod bytes;
mod crash;
mod document;
mod faults;
mod routes;
mod samples;
mod server;
mod stores;
mod tidy;
mod writing;
