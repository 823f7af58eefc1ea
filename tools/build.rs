//! Compiles the one function that the store needs in C.

fn main() {
    const SOURCE: &str = "src/store/sync_file_range.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    // Elsewhere sled synchronises its files by itself.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|it| it == "linux") {
        // Nobody asks for the function by the time the linker comes across it; it must be taken along all the same.
        cc::Build::new().file(SOURCE).link_lib_modifier("+whole-archive").compile("haldir_sync");
    }
}
