/*
 * All requirements.
 */
import { ACCESS_CHECKS } from './checks_access';
import { API_CHECKS } from './checks_api';
import { DATA_CHECKS } from './checks_data';
import { NETWORK_CHECKS } from './checks_network';
import { SERVICE_CHECKS } from './checks_service';

export const CHECKS = [...NETWORK_CHECKS, ...DATA_CHECKS, ...ACCESS_CHECKS,
  ...SERVICE_CHECKS, ...API_CHECKS];
