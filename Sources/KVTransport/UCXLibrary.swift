import CUCX
import Disaggregation
import Foundation
import NIOCore

/// The UCX of this machine, which is looked for when the program runs.
package enum UCXLibrary {
    /// Returns why UCX cannot be used, and what to do; `nil` if it can. The first call opens the libraries. It is to be made
    /// while no other thread uses the environment.
    package static func problem() -> String? {
        var text = [CChar](repeating: 0, count: Int(BRAID_UCX_TEXT))
        if unsafe braid_ucx_load(&text) { return nil }
        return
            "UCX cannot be used: \(Self.string(text)); install libucx0 to run and libucx-dev to build (make setup does "
            + "both) and build again, or use tcp"
    }

    static func string(_ text: [CChar]) -> String {
        String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

/// What a session's UCX may use.
package struct UCXSettings: Sendable, Equatable {
    /// The transports, in the form of `UCX_TLS`; `nil` leaves the choice to this variable.
    package var transports: String?
    /// The network devices, in the form of `UCX_NET_DEVICES`; `nil` leaves the choice to this variable.
    var devices: String?

    package init(transports: String? = nil) { self.transports = transports }

    /// Returns the settings of a session whose messages go over the device with an address. Its frames go over the same device
    /// or an InfiniBand one, since UCX would listen on all of them otherwise; over no other than loopback if messages do. The
    /// variable `UCX_NET_DEVICES` overrules this.
    ///
    /// - Throws: if no device has the address.
    func restricted(to address: SocketAddress?) throws(TransferFailure) -> UCXSettings {
        if ProcessInfo.processInfo.environment["UCX_NET_DEVICES"] != nil { return self }
        let host = address?.ipAddress ?? "none"
        // IPv4 on a socket for both.
        let plain = host.hasPrefix("::ffff:") ? String(host.dropFirst(7)) : host
        let found = (try? System.enumerateDevices())?.first { $0.address?.ipAddress == plain }
        guard let device = found?.name else {
            throw TransferFailure("no network device has the address \(host) of this connection; set UCX_NET_DEVICES")
        }
        var settings = self
        let isLoopback = plain == "::1" || plain.hasPrefix("127.")
        settings.devices = ([device] + (isLoopback ? [] : Self.infiniBandDevices())).joined(separator: ",")
        return settings
    }

    /// Returns the ports of InfiniBand devices, by UCX's names.
    private static func infiniBandDevices(_ folder: String = "/sys/class/infiniband") -> [String] {
        let files = FileManager.default
        let devices = (try? files.contentsOfDirectory(atPath: folder)) ?? []
        return devices.sorted().flatMap { device in
            let ports = (try? files.contentsOfDirectory(atPath: "\(folder)/\(device)/ports")) ?? []
            return ports.sorted().map { "\(device):\($0)" }
        }
    }
}
