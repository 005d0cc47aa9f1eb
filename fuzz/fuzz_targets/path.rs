//! A path has one spelling: what is accepted is stable, absolute, and free of what servers read in two ways.
#![no_main]

use keybearer::path::CanonicalPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let Ok(path) = CanonicalPath::parse(raw) else { return };
    let text = path.as_str();
    assert_eq!(CanonicalPath::parse(text).as_ref(), Ok(&path));
    assert!(text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!text.contains("//") && !text.contains(['\\', ';', '?', '#']));
    assert!(path.segments().all(|segment| segment != "." && segment != ".."));
    assert!(!["%2f", "%2F", "%5c", "%5C", "%00", "%2e", "%2E"].iter().any(|odd| text.contains(odd)));
    // Not only once: what a second decoding would make of it is the same path.
    assert!(!["%252f", "%252F", "%252e", "%252E", "%255c", "%255C"].iter().any(|odd| text.contains(odd)));
});
