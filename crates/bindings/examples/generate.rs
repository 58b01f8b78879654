//! Writes what other languages import: `generate LIBRARY FOLDER LANGUAGE…`.
//!
//! LIBRARY is the one that cargo built of this crate, whose interface is read from it; LANGUAGE is
//! `python`, `kotlin` or `swift`.

use std::error::Error;

use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, folder, languages @ ..] = arguments.as_slice() else {
        return Err("usage: generate LIBRARY FOLDER LANGUAGE…".into());
    };
    let language = |name: &String| match name.as_str() {
        "python" => Ok(TargetLanguage::Python),
        "kotlin" => Ok(TargetLanguage::Kotlin),
        "swift" => Ok(TargetLanguage::Swift),
        other => Err(format!("`{other}` is not one of python, kotlin, swift")),
    };
    generate(GenerateOptions {
        languages: languages.iter().map(language).collect::<Result<_, _>>()?,
        source: library.into(),
        out_dir: folder.into(),
        config_override: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/uniffi.toml").into()),
        ..GenerateOptions::default()
    })?;
    Ok(())
}
