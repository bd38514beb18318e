/// Tells the names and addresses of this machine from those of others.
package enum Loopback {
    /// Returns whether a host is surely this machine: `localhost`, `::1`, or an IPv4 address that begins with 127. A name
    /// that only looks like such an address, as `127.example.org` does, may be any machine.
    package static func contains(_ host: String) -> Bool {
        if ["localhost", "::1"].contains(host) { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}
