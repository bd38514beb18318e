#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Returns what the system says about an error number.
package func systemMessage(_ code: Int32) -> String { unsafe String(cString: strerror(code)) }
