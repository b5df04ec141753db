/** What servers in tests say of themselves where it does not matter. */
import type { Announcement } from '../../src/wire/protocol-version.js';
import { PROTOCOL } from '../../src/wire/protocol-version.js';

export const ANNOUNCEMENT: Announcement = { speaks: PROTOCOL, release: 'test' };
