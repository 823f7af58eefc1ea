//! One binary; modules by the question they ask.

mod bytes;
mod document;
mod samples;
