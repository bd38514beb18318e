/// Lists the element types of a safetensors file by their names in its header.
package enum StoredType: String, Sendable, CaseIterable {
    case f64 = "F64"
    case f32 = "F32"
    case f16 = "F16"
    case bf16 = "BF16"
    /// The exponent has bias 7, the largest value is 448, there are no infinities; NaN is 0x7F or 0xFF.
    case f8e4m3 = "F8_E4M3"
    case f8e5m2 = "F8_E5M2"
    /// A value is a power of two, 2^(byte − 127); NaN is 0xFF.
    case f8e8m0 = "F8_E8M0"
    case i64 = "I64"
    case i32 = "I32"
    case i16 = "I16"
    case i8 = "I8"
    case u64 = "U64"
    case u32 = "U32"
    case u16 = "U16"
    case u8 = "U8"
    case bool = "BOOL"

    /// The size of one element in bytes.
    package var bytes: Int {
        switch self {
        case .f64, .i64, .u64: 8
        case .f32, .i32, .u32: 4
        case .f16, .bf16, .i16, .u16: 2
        case .f8e4m3, .f8e5m2, .f8e8m0, .i8, .u8, .bool: 1
        }
    }
}
