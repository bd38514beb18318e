import Foundation
import NIOCore
import NIOPosix

extension Error {
    /// Says in one line why a connection could not be made, or an address could not be listened on: in the words of the
    /// system where it has any, such as "Connection refused".
    package var connectionReason: String {
        let text = systemError.map { unsafe String(cString: strerror($0)) } ?? Self.words(connectionCause)
        return String(text.prefix(256).map { $0.isNewline ? " " : $0 })
    }

    /// The number (`errno`) that the system gave; `nil` if it was not the system that refused.
    package var systemError: CInt? { (connectionCause as? IOError)?.errnoCode }

    /// The error of the first address that was tried, or that of the host's name if it has no address.
    private var connectionCause: any Error {
        guard let failure = self as? NIOConnectionError else { return self }
        return failure.connectionErrors.first?.error ?? failure.dnsAError ?? failure.dnsAAAAError ?? self
    }

    private static func words(_ error: any Error) -> String {
        switch error {
        case ChannelError.connectTimeout(_): "no answer in time"
        case is SocketAddressError.UnknownHost: "no such host is known"
        default: "\(error)"
        }
    }
}
