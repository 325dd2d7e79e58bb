//! The one way to declare what crosses the boundary, and the one way to read it and to write it on the host.

/// Declares a record: `repr(C)`, without padding on either side, only plain old data within.
///
/// Padding fails to compile on both targets; a field that is not plain old data (`bool`,
/// `Option`) fails in the host build, which every build includes.
macro_rules! abi {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$type>())*,
            concat!(stringify!($name), " has padding; reorder its fields or add an explicit pad")
        );

        #[cfg(not(target_arch = "bpf"))]
        const _: () = {
            const fn plain_old_data<T: aya::Pod>() {}
            $(plain_old_data::<$type>();)*
        };

        // SAFETY: repr(C), every field is Pod and there is no padding, both checked above.
        #[cfg(not(target_arch = "bpf"))]
        #[expect(unsafe_code, reason = "the marker that lets aya copy the record")]
        unsafe impl aya::Pod for $name {}
    };
}

/// Copies a record from the front of `bytes`, whatever their alignment.
///
/// `None` when `bytes` is shorter than the record.
#[cfg(not(target_arch = "bpf"))]
#[expect(unsafe_code, reason = "the one unaligned copy of a record")]
pub fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    (bytes.len() >= size_of::<T>()).then(|| {
        // SAFETY: the length was checked; T is Pod, so every bit pattern is a value.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    })
}

/// The bytes of a record, as a kernel program lays them.
#[cfg(not(target_arch = "bpf"))]
#[expect(unsafe_code, reason = "the one look at a record as bytes")]
pub fn bytes<T: aya::Pod>(record: &T) -> &[u8] {
    let at = core::ptr::from_ref(record).cast::<u8>();
    // SAFETY: they are initialised and as many, for T is Pod and has no padding; they live as long as the record.
    unsafe { core::slice::from_raw_parts(at, size_of::<T>()) }
}
